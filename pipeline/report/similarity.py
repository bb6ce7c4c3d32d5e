"""Similarity of feature sets, and misordered rows (I items, R of them searched, K neighbours)."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from alignrec.pipeline.evaluation.probe.questions import sample_ids
from alignrec.pipeline.features.compared import ComparedSet
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.nearest import find_nearest
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.report.table import Fields
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.seeds import seed_for

NEIGHBOURS = 10
SHOWN_NEIGHBOURS = 6  # neighbours on a page, per item
DEVIATIONS = 4.0  # overlap up to this many standard deviations above chance counts as chance
MIN_ITEMS = 100  # below, unrelated sets share too many neighbours by chance to be told apart
DIGITS = 6  # decimal places


def find_neighbours(
    features: np.ndarray, k: int, rows: np.ndarray | None = None, scores_held: int = 1 << 24
) -> np.ndarray:
    """Return the K nearest others by cosine, int32 [R, K], sorted by id; ties within 1e-6 go to
    lower ids.
    """
    unit, n = unit_rows(features)[0], len(features)
    rows = np.arange(n) if rows is None else rows
    block = max(1, scores_held // engine.CORES // n)

    def of_block(at: int) -> np.ndarray:
        searched = rows[at : at + block]
        nearest = find_nearest(unit[searched], unit, k, searched)
        return np.sort(nearest, axis=1).astype(np.int32)

    return np.concatenate(list(engine.in_threads(of_block, range(0, len(rows), block))))


def changed_items(
    a: ComparedSet, b: ComparedSet, items: Sequence[tuple[int, float]]
) -> dict[str, Any]:
    """Return items and overlaps, best first.

    Each has its SHOWN_NEIGHBOURS nearest other items in both sets.
    """
    near, at = [], [item for item, _ in items]
    for vectors in (a.vectors, b.vectors):
        unit = unit_rows(vectors)[0]
        best = find_nearest(unit[at], unit, SHOWN_NEIGHBOURS, np.array(at, np.int64))
        near.append(dict(zip(at, best.tolist(), strict=True)))
    return {"a": a.name, "b": b.name, "items": items, "near_a": near[0], "near_b": near[1]}


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the fraction of shared neighbours, float64 [R], of two arrays, int [R, K]."""
    rows, k = a.shape
    n_ids = int(max(a.max(), b.max())) + 1
    # ids of different rows differ, so that one search covers all rows
    offset = np.arange(rows, dtype=np.int64)[:, None] * n_ids
    return np.isin(a + offset, b + offset).sum(axis=1) / k


def compare_sets(sets: Sequence[ComparedSet], changed: int) -> dict[str, Any]:
    """Return shapes, similarities by pair with the `changed` most changed items, and doubts."""
    n_items = len(sets[0].vectors)
    k = min(NEIGHBOURS, n_items - 1)
    # in large catalogues only a sample of items is searched
    rows = sample_ids(np.arange(n_items), n_items, seed_for("compare", "neighbours"))
    near = {features.name: find_neighbours(features.vectors, k, rows) for features in sets}
    spectra = {features.name: projections.spectrum(features.vectors) for features in sets}

    pairs = []
    for a, b in combinations(sets, 2):
        shares = overlap(near[a.name], near[b.name])
        pair: dict[str, Any] = {"a": a.name, "b": b.name, "neighbours": k}
        pair["overlap"] = round(float(shares.mean()), DIGITS)
        pair["neighbours_changed"] = round(float((shares < 1).mean()), DIGITS)
        if len(rows) < n_items:
            pair["sampled"] = len(rows)
            pair["overlap_se"] = round(float(shares.std() / len(rows) ** 0.5), DIGITS)
        cka = projections.linear_cka(a.vectors, b.vectors, spectra[a.name], spectra[b.name])
        pair["cka"] = round(cka, DIGITS)
        pair["most_changed"] = _most_changed(shares, rows, changed)
        pairs.append(pair)

    shapes = {}
    for features in sets:
        shape = projections.measure_shape(features.vectors, spectra[features.name])
        shapes[features.name] = {name: _rounded(value) for name, value in shape._asdict().items()}
    return {"sets": shapes, "pairs": pairs, "order": find_misordered(sets, pairs, n_items)}


def _most_changed(shares: np.ndarray, rows: np.ndarray, count: int) -> list[dict[str, Any]]:
    lowest = np.argsort(shares, kind="stable")[:count]
    return [{"item_id": int(rows[i]), "overlap": round(float(shares[i]), DIGITS)} for i in lowest]


def _rounded(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value


def find_misordered(
    sets: Sequence[ComparedSet], pairs: Sequence[Fields], n_items: int
) -> list[dict[str, Any]]:
    """Return sets without identifiers that share no more neighbours with others than by chance."""
    if n_items < MIN_ITEMS or not pairs:
        return []
    k = pairs[0]["neighbours"]
    chance = k / (n_items - 1)
    compared = k * pairs[0].get("sampled", n_items)
    chance_level = chance + DEVIATIONS * (chance / compared) ** 0.5

    doubts = []
    for features in sets:
        overlaps = [
            pair["overlap"]
            for pair in pairs
            if features.name in (pair["a"], pair["b"]) and not {pair["a"], pair["b"]} & {*CONTROLS}
        ]
        if not features.identified and overlaps and max(overlaps) <= chance_level:
            doubt = {"features": features.name, "neighbours": k, "overlap": max(overlaps)}
            doubts.append(doubt | {"chance": round(chance, DIGITS)})
    return doubts
