"""combine: feature sets -> those that linear algebra makes of them, files of others, and controls; without torch."""

from pipeline.combine.params import Combine
from pipeline.run import Run
from pipeline.stage import SOURCE, Stage
from stages.beit3 import BEIT3
from stages.download import DOWNLOAD
from stages.encode import ENCODE
from stages.interactions import INTERACTIONS
from stages.items import ITEMS


def main(run: Run) -> None:
    from pipeline.combine.write import write_combinations  # loads SciPy

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
FEATURES = (ENCODE, BEIT3, COMBINE)  # the stages that write feature sets
