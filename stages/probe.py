"""Stage probe: evaluate feature sets without a recommender."""

from functools import partial

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.names import (
    LEAKED,
    MASKED,
    PLANTED,
    can_refit,
    is_ceiling,
    kind_of,
    learns_from_train,
)
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.probe.params import Probe
from alignrec.pipeline.probe.registry import PROBES
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import FEATURE_SETS, Stage
from alignrec.stages.combine import FEATURES
from alignrec.stages.interactions import INTERACTIONS

YARDSTICKS = (
    MASKED,
    LEAKED,
    PLANTED,
    "random",
    "shuffled",
    "constant",
)  # kinds of sets that are not processed


def main(run: Run) -> None:
    from alignrec.pipeline.features.maps import refit_mapped  # loads SciPy
    from alignrec.pipeline.probe.judge import judge_sets
    from alignrec.pipeline.probe.registry import Data

    layout, names, ours = run.layout, run.layout.feature_sets(), run.params[TrainSettings].features
    items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    learned = [name for name in names if learns_from_train(run.params, run.dataset, name)]
    refits = {
        name: partial(refit_mapped, layout, name)
        if can_refit(run.params, run.dataset, name)
        else None
        for name in learned
    }
    own, defined = run.params[Probe], run.params[Combine].sets
    # yardsticks only calibrate the figures, so their raw form is enough
    unprocessed = [name for name in names if kind_of(defined, name) in YARDSTICKS]
    pairs = [(ours, name) for name in names if name != ours and not is_ceiling(defined, name)]
    sets = ((name, io.map_features(layout.features(name))) for name in names)
    shown, seed = run.progress(sets, total=len(names), unit="set"), run.seed("verdicts")
    judged, _ = judge_sets(  # which drops the only reference to the table of interactions
        Data(io.read_table(layout.interactions, schemas.INTERACTIONS), items, refits), shown, own.ks, pairs, seed,
        own.width, unprocessed,
    )  # fmt: skip
    io.write_json(layout.probes, judged.pop("probes") | judged | {"learned": sorted(refits)})
    run.rows_in = run.rows_out = len(names)


PROBE = Stage(
    "probe", does="feature sets judged without a recommender",
    writes="`probes.json`: feature sets judged before any training", reads=(INTERACTIONS, *FEATURES),
    sections=("train.features", *FEATURE_SETS), params=Probe, main=main, loads=(PROBES,),
)  # fmt: skip
