"""Judge the feature sets of a dataset by its parameters."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.probe.judge import judge_sets
from alignrec.pipeline.evaluation.probe.params import ProbeParams
from alignrec.pipeline.evaluation.probe.registry import Data
from alignrec.pipeline.features.names import DeclaredSets, kind_of
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run


def judge_dataset(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Return figures and verdicts of feature sets, the content of probes.json."""
    layout = run.layout
    params = run.params[ProbeParams]
    declared = DeclaredSets(run.params, run.dataset)
    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))

    judged, _ = judge_sets(
        # the only reference to the table of interactions, which is dropped there
        Data(io.read_table(layout.interactions, schemas.INTERACTIONS), n_items),
        run.progress(map_sets(layout, names), total=len(names), unit="set"),
        params.ks,
        pair_with_released(names, run.params[TrainSettings].features),
        run.seed("verdicts"),
        params.width,
        list_yardsticks(declared, names),
    )
    return judged.pop("probes") | judged


def map_sets(layout: Layout, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        yield name, io.map_features(layout.features(name))


def pair_with_released(names: Sequence[str], released: str) -> list[tuple[str, str]]:
    return [(released, rival) for rival in names if rival != released]


def list_yardsticks(declared: DeclaredSets, names: Sequence[str]) -> list[str]:
    kinds = {name: kind_of(declared.combined, name) for name in names}
    return [name for name, kind in kinds.items() if kind and kind.is_yardstick]
