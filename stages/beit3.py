"""Stage beit3: encode items with the network trained by `pretrain`."""

from alignrec.pipeline.beit3.params import BEiT3Sets, Pretrain
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import Stage
from alignrec.stages.encode import ENCODE
from alignrec.stages.images import IMAGES
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS
from alignrec.stages.pretrain import PRETRAIN


def main(run: Run) -> None:
    if not run.params[BEiT3Sets].sets:
        run.note(skipped="beit3.sets is empty")
        return
    from alignrec.pipeline.beit3.feature_sets import write_sets  # loads torch

    write_sets(run, run.params[Pretrain].max_tokens)


BEIT3 = Stage(
    "beit3",
    does="items -> the feature sets of the trained network",
    writes="`<set>/features-*.parquet`, `<set>/set.json`, `<set>/encoder/`",
    reads=(INTERACTIONS, ITEMS, IMAGES, ENCODE, PRETRAIN),
    resumes=True,
    sections=("encode", "pretrain"),
    params=BEiT3Sets,
    main=main,
)
