"""pretrain: BEiT3 by masked image and masked language modelling on the dataset's own images and texts."""

from pipeline import parallel
from pipeline.encode.registry import ENCODERS
from pipeline.features.registry import FEATURES
from pipeline.pretrain.params import Pretrain
from pipeline.run import Run
from pipeline.stage import FEATURE_SETS, Stage
from stages.images import IMAGES
from stages.interactions import INTERACTIONS
from stages.items import ITEMS


def main(run: Run) -> None:
    from pipeline.pretrain import frozen  # loads torch
    from pipeline.pretrain.train import train

    if not frozen.is_read(run):
        run.resume(run.folder, [])
        run.note(skipped="no feature set of encode.encoders reads what pretrain makes")
        return
    with parallel.rank_zero_first():
        frozen.resume(run)
        trained = run.finished()
    if not trained:
        train(run)


PRETRAIN = Stage(
    "pretrain",
    does="BEiT3 by MIM + MLM, and the losses that `pretrain` adds to them",
    writes="`encoder.safetensors`, `config.json`, `tokenizer.spm`, `history.json`",
    reads=(INTERACTIONS, ITEMS, IMAGES),
    sections=FEATURE_SETS,
    params=Pretrain,
    main=main,
    resumes=True,
    loads=(ENCODERS, FEATURES),
)
