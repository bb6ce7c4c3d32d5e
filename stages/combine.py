"""Stage combine: feature sets derived by linear algebra, third-party features, and controls."""

from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import SOURCE, Stage
from alignrec.stages.beit3 import BEIT3
from alignrec.stages.download import DOWNLOAD
from alignrec.stages.encode import ENCODE
from alignrec.stages.interactions import INTERACTIONS
from alignrec.stages.items import ITEMS


def main(run: Run) -> None:
    from alignrec.pipeline.features.combine import write_combinations  # loads SciPy

    write_combinations(run)


COMBINE = Stage(
    "combine",
    does="feature sets -> concatenations, linear maps, and controls",
    writes="`<set>/features-*.parquet`, `<set>/set.json`, `<set>/encoder/`",
    reads=(DOWNLOAD, INTERACTIONS, ITEMS, ENCODE, BEIT3),
    resumes=True,
    light=True,
    sections=("encode", "beit3", SOURCE),
    params=Combine,
    main=main,
)
FEATURE_SET_STAGES = (ENCODE, BEIT3, COMBINE)  # the stages that write feature sets
