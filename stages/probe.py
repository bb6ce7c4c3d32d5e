"""probe: feature sets judged without a recommender, raw and processed -> probes.json."""

import schemas
from pipeline import io
from pipeline.combine.names import is_ceiling
from pipeline.combine.params import Combine
from pipeline.probe.params import Probe
from pipeline.probe.registry import PROBES
from pipeline.run import Run
from pipeline.stage import FEATURE_SETS, Stage
from pipeline.train.params import Released
from stages.combine import FEATURES
from stages.interactions import INTERACTIONS


def main(run: Run) -> None:
    from pipeline.probe import asking  # loads SciPy
    from pipeline.probe.base import Data

    layout, names = run.layout, run.layout.feature_sets()
    interactions = run.read(layout.interactions, schemas.INTERACTIONS)
    items = len(run.read(layout.item_ids, schemas.ITEM_IDS))
    data = Data(interactions, items, asking.relearned(run, names))
    rivals = [name for name in names if not is_ceiling(run.params[Combine].sets, name)]
    ours = run.params[Released].features
    pairs = [(ours, name) for name in rivals if name != ours]
    figures = asking.judge_sets(run, data, names, pairs)
    io.write_json(layout.probes, figures)
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
