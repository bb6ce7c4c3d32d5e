"""probe: feature sets judged without a recommender, raw and processed -> probes.json."""

import schemas
from pipeline import io
from pipeline.features import registry
from pipeline.probe.params import Probe
from pipeline.probe.registry import PROBES
from pipeline.run import Run
from pipeline.stage import FEATURE_SETS, Stage
from pipeline.train.params import Released
from stages.encode import ENCODE
from stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from pipeline.probe import judge  # loads SciPy
    from pipeline.probe.base import Data

    layout, names = run.layout, run.layout.feature_sets()
    interactions = run.read(layout.interactions, schemas.INTERACTIONS)
    items = len(run.read(layout.item_ids, schemas.ITEM_IDS))
    data = Data(interactions, items, judge.relearned(run, names))
    rivals = [name for name in names if not registry.is_ceiling(run.params.encoders, name)]
    ours = run.params[Released].features
    pairs = [(ours, name) for name in rivals if name != ours]
    figures = judge.judge_sets(run, data, names, pairs)
    io.write_json(layout.probes, figures)
    run.rows_in = run.rows_out = len(names)


PROBE = Stage(
    "probe",
    does="feature sets judged without a recommender",
    writes="`probes.json`: feature sets judged before any training",
    reads=(INTERACTIONS, ENCODE),
    sections=("train.features", *FEATURE_SETS),
    params=Probe,
    main=main,
    loads=(PROBES,),
)
