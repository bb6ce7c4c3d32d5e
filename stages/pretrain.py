"""Stage pretrain: BEiT3 by masked image and language modelling on the dataset."""

from alignrec.pipeline.beit3.params import BEiT3Sets, Pretrain
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import Stage
from alignrec.stages.encode import ENCODE
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS


def main(run: Run) -> None:
    if not run.params[BEiT3Sets].sets:
        run.resume(run.folder, [])
        run.note(skipped="beit3.sets is empty: no feature set reads what pretrain makes")
        return
    from alignrec.pipeline.beit3 import pretrain  # loads torch

    with process.rank_zero_first():
        pretrain.resume(run)
        trained = run.finished()
    if not trained:
        pretrain.train(run)


PRETRAIN = Stage(
    "pretrain",
    does="BEiT3 by MIM + MLM, and the losses that `pretrain` adds to them",
    writes="`encoder.safetensors`, `config.json`, `tokenizer.spm`, `history.json`",
    reads=(INTERACTIONS, ITEMS, IMAGES, ENCODE),
    resumes=True,
    sections=("beit3",),
    params=Pretrain,
    main=main,
)
