"""`publish.vectors`: feature sets in fewer bits, and what that costs on each probe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.probe.judge import answer_sets, build_tasks, summarise_answers
from alignrec.pipeline.evaluation.probe.questions import sample_ids
from alignrec.pipeline.evaluation.probe.registry import PROBES, Data
from alignrec.pipeline.features.compared import MIN_COMPARED_ITEMS
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import paired_cosines
from alignrec.pipeline.release.manifest import ProbedRounding, RoundedSet, Rounding
from alignrec.pipeline.release.params import VectorType
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.probes import CHANCE
from alignrec.pipeline.report.similarity import NEIGHBOURS, find_neighbours, overlap
from alignrec.pipeline.runtime.seeds import seed_for

VECTORS_KEY = "publish.vectors"
LOSS_DIGITS = 6  # decimal places


def round_release(folder: Path, stored: VectorType, outputs: Outputs) -> Rounding:
    """Store the feature sets of a written release in a smaller type, and measure the loss.

    UserError if the type cannot hold their numbers.
    """
    sets: dict[str, RoundedSet] = {}
    for path in sorted((folder / "features").iterdir()):
        before = io.map_features(path)
        for shard in io.shards(path, "features"):
            _round_table(shard, stored, path.name)
        sets[path.name] = measure_loss(before, io.map_features(path))

    for name, probes in _probe_rounded(folder, outputs, list(sets)).items():
        sets[name] = sets[name].model_copy(update={"probes": probes})
    return Rounding(stored=stored, sets=sets)


def _round_table(path: Path, stored: VectorType, name: str) -> None:
    schema = schemas.features(io.width(path.parent))
    parts = io.read_slices(path, schema, schema.names, io.PART)
    rounded = (io.round_vectors(part, stored) for part in parts)
    record = io.record(path) or None  # imported files have none
    try:
        io.write_tables(rounded, path, schemas.store_as(schema, stored), record)
    except ValueError as e:
        raise UserError(f"'{VECTORS_KEY}': {name}: {e}; choose another type") from None


def measure_loss(before: np.ndarray, after: np.ndarray) -> RoundedSet:
    """Compare vectors, float32 [I, F], with their rounded form."""
    items = len(before)
    lowest = 1.0
    for start in range(0, items, io.PART):
        rows = slice(start, start + io.PART)
        cosines = paired_cosines(before[rows], after[rows])
        lowest = min(lowest, float(cosines.min(initial=1)))

    loss = RoundedSet(cosine=round(lowest, LOSS_DIGITS))
    if items < MIN_COMPARED_ITEMS:
        return loss
    searched = sample_ids(np.arange(items), items, seed_for("rounding", "neighbours"))
    k = min(NEIGHBOURS, items - 1)
    nearest = [find_neighbours(vectors, k, searched) for vectors in (before, after)]
    shared = float(overlap(*nearest).mean())
    return loss.model_copy(update={"neighbours": k, "overlap": round(shared, LOSS_DIGITS)})


def _probe_rounded(
    folder: Path, outputs: Outputs, names: list[str]
) -> dict[str, dict[str, ProbedRounding]]:
    """Return feature set -> probe -> its headline figure before and after.

    Empty if the stage `probe` did not run.
    """
    stored = outputs.probes or {}
    judged = {name: stored[name] for name in PROBES if CHANCE in stored.get(name, {})}
    cutoffs = _read_cutoffs(judged)
    if not cutoffs:
        return {}

    layout = outputs.layout
    n_items = io.rows([layout.item_ids])
    data = Data(io.read_table(layout.interactions, schemas.INTERACTIONS), n_items)
    asked = {name: task for name, task in build_tasks(data).items() if name in judged}
    # further items of `items.all` are not judged
    sets = ((name, io.map_features(folder / "features" / name)[:n_items]) for name in names)
    answers, _ = answer_sets(asked, sets, cutoffs)
    rounded = summarise_answers(asked, answers, cutoffs)
    return {name: _pair_figures(name, judged, rounded) for name in names}


def _read_cutoffs(judged: Mapping[str, Any]) -> list[int]:
    """Return the cutoffs of stored figures, such as 5 and 20 of hit@5 and hit@20."""
    cutoffs = set()
    for name, results in judged.items():
        if not PROBES[name].drawn:
            measures = [measure for measure in results[CHANCE] if not measure.endswith("_se")]
            cutoffs |= {int(measure.rpartition("@")[2]) for measure in measures if "@" in measure}
    return sorted(cutoffs)


def _pair_figures(
    name: str, judged: Mapping[str, Any], rounded: Mapping[str, Any]
) -> dict[str, ProbedRounding]:
    pairs: dict[str, ProbedRounding] = {}
    for probe, results in judged.items():
        figure = PROBES[probe].figure
        before = results.get(name, {}).get(figure)
        after = rounded.get(probe, {}).get(name, {}).get(figure)
        if before is not None and after is not None:
            pairs[probe] = ProbedRounding(figure=figure, before=before, after=after)
    return pairs
