"""Stage probe: evaluation of feature sets without a recommender."""

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.stage import FEATURE_SETS, Stage
from alignrec.pipeline.probe.params import Probe
from alignrec.pipeline.probe.registry import PROBES
from alignrec.pipeline.train.params import Released
from alignrec.stages.combine import FEATURES
from alignrec.stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from alignrec.pipeline.probe import judge  # loads SciPy
    from alignrec.pipeline.probe.registry import Data

    layout, names = run.layout, run.layout.feature_sets()
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    data = Data(interactions, items, judge.refits_of(run, names))
    io.write_json(layout.probes, judge.judge_sets(run, data, names, run.params[Released].features))
    run.rows_in = run.rows_out = len(names)


PROBE = Stage(
    "probe",
    does="feature sets judged without a recommender",
    writes="`probes.json`: feature sets judged before any training",
    reads=(INTERACTIONS, *FEATURES),
    sections=("train.features", *FEATURE_SETS),
    params=Probe,
    main=main,
    loads=(PROBES,),
)
