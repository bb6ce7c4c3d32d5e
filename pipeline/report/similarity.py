"""Similarity of feature sets, and detection of misordered rows (I items, R of them searched, K neighbours)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.nearest import find_nearest
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.probe.questions import sample_ids
from alignrec.pipeline.report.feature_set import FeatureSet
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.seeds import seed_for

NEIGHBOURS = 10
SHOWN = 6  # neighbours on a page, per item
BY_CHANCE = (
    4.0  # overlap up to this many standard deviations of independent draws counts as chance level
)
MANY = 3.0  # minimum overlap that counts as many shared neighbours, as a multiple of chance
ENOUGH = 10  # minimum shared neighbours, as chance is below one among a million items
LOOKED_AT = 2000  # maximum items compared with noise
# maximum nearest distance of a structured set, relative to noise; on `sample`, random sets have 1.00, encoders 0.51
NEARER = 0.8


def find_neighbours(
    features: np.ndarray, k: int, rows: np.ndarray | None = None, scores_held: int = 1 << 24
) -> np.ndarray:
    """Return the K nearest others by cosine, int32 [R, K], sorted by id; ties within 1e-6 go to lower ids."""
    unit, n = unit_rows(features)[0], len(features)
    rows = np.arange(n) if rows is None else rows
    block = max(1, scores_held // engine.CORES // n)

    def of_block(at: int) -> np.ndarray:
        searched = rows[at : at + block]
        nearest = find_nearest(unit[searched], unit, k, searched)
        return np.sort(nearest, axis=1).astype(np.int32)

    return np.concatenate(list(engine.in_threads(of_block, range(0, len(rows), block))))


def changed_items(
    a: FeatureSet, b: FeatureSet, items: Sequence[tuple[int, float]]
) -> dict[str, Any]:
    """Return items and overlaps, with the SHOWN nearest others of each item, best first, in both sets."""
    near, at = [], [item for item, _ in items]
    for vectors in (a.vectors, b.vectors):
        unit = unit_rows(vectors)[0]
        best = find_nearest(unit[at], unit, SHOWN, np.array(at, np.int64))
        near.append(dict(zip(at, best.tolist(), strict=True)))
    return {"a": a.name, "b": b.name, "items": items, "near_a": near[0], "near_b": near[1]}


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the fraction of shared neighbours, float64 [R], of two arrays, int [R, K]."""
    n, k = a.shape
    offset = np.arange(n, dtype=np.int64)[:, None] * (int(max(a.max(), b.max())) + 1)
    return np.isin(a + offset, b + offset).sum(axis=1) / k


def compare_sets(
    sets: Sequence[FeatureSet], changed: int, others: Iterable[FeatureSet] = ()
) -> dict[str, Any]:
    """Return shapes, similarities by pair with the `changed` most changed items, and misordered sets."""
    # in large catalogues only a sample of items is searched: `sampled` items, with standard error `overlap_se`
    items = len(sets[0].vectors)
    k, rows = (
        min(NEIGHBOURS, items - 1),
        sample_ids(np.arange(items), items, seed_for("compare", "neighbours")),
    )
    near = {g.name: find_neighbours(g.vectors, k, rows) for g in sets}
    spectra = {g.name: projections.spectrum(g.vectors) for g in sets}
    pairs = []
    for a, b in combinations(sets, 2):
        share = overlap(near[a.name], near[b.name])
        pair = {"a": a.name, "b": b.name, "neighbours": k, "overlap": round(float(share.mean()), 6)}
        if len(rows) < items:
            pair |= {
                "sampled": len(rows),
                "overlap_se": round(float(share.std() / len(rows) ** 0.5), 6),
            }
        cka = projections.linear_cka(a.vectors, b.vectors, spectra[a.name], spectra[b.name])
        lowest = np.argsort(share, kind="stable")[:changed]
        most = [{"item_id": int(rows[i]), "overlap": round(float(share[i]), 6)} for i in lowest]
        pairs.append(pair | {"cka": round(cka, 6), "most_changed": most})
    found = {g.name: projections.measure_shape(g.vectors, spectra[g.name])._asdict() for g in sets}
    rounded = {
        n: {k: round(v, 6) if isinstance(v, float) else v for k, v in s.items()}
        for n, s in found.items()
    }
    return {"sets": rounded, "pairs": pairs, "order": find_misordered(sets, rows, near, others)}


class _Rows(NamedTuple):
    """Evidence on the row order of a feature set."""

    name: str
    identified: bool
    near: np.ndarray  # int [R, K]
    directed: np.ndarray  # bool [R], rows that are not zero
    is_structured: bool

    def share(self, other: _Rows) -> float:
        both = self.directed & other.directed
        return float(overlap(self.near, other.near)[both].mean()) if both.any() else 0.0

    def is_by_chance(self, other: _Rows, chance: float) -> bool:
        compared = max(1, int((self.directed & other.directed).sum())) * self.near.shape[1]
        return self.share(other) <= min(
            MANY * chance, chance + BY_CHANCE * (chance / compared) ** 0.5
        )


# Rows without identifiers seem misordered if two other sets share many more neighbours than chance, this set is at
# chance level with all sets whose order is known, and its neighbours are closer than in noise of the same covariance:
# a random control has no order that could be wrong.
def find_misordered(
    sets: Sequence[FeatureSet],
    rows: np.ndarray,
    near: Mapping[str, np.ndarray],
    others: Iterable[FeatureSet] = (),
) -> list[dict[str, Any]]:
    """Return sets whose rows seem misordered; `near` has the sorted neighbours of items `rows`, int [R, K]."""
    found, spare, names = [], iter(others), {g.name for g in sets}
    k = near[sets[0].name].shape[1]
    chance = k / max(len(sets[0].vectors) - 1, 1)
    known = [_describe_rows(g, rows, near[g.name]) for g in sets]
    for one in [g for g in known if not g.identified and g.is_structured]:
        if _is_foreign(one, known, chance):
            known += [
                _describe_rows(g, rows, find_neighbours(g.vectors, k, rows))
                for g in spare
                if g.name not in names
            ]
        if not _is_foreign(one, known, chance):
            continue
        some = any(g.identified for g in known)
        pairs = combinations([g for g in known if g is not one and one.is_by_chance(g, chance)], 2)
        witnesses = (pair for pair in pairs if pair[0].identified or pair[1].identified or not some)
        for a, b in (pair for pair in witnesses if pair[0].is_structured and pair[1].is_structured):
            shared = a.share(b)
            if shared >= MANY * chance and shared * a.near.size >= ENOUGH:
                shares = {other.name: round(one.share(other), 6) for other in (a, b)}
                doubt = {
                    "features": one.name,
                    "neighbours": k,
                    "overlap": shares,
                    "shared": round(shared, 6),
                }
                found.append(doubt | {"chance": round(chance, 6)})
                break
    return found


def _is_foreign(one: _Rows, known: Sequence[_Rows], chance: float) -> bool:
    """Return whether overlap is at chance level with all identified sets, or with all sets if there are none."""
    rest = [other for other in known if other is not one]
    return all(
        one.is_by_chance(other, chance) for other in [g for g in rest if g.identified] or rest
    )


def _describe_rows(features: FeatureSet, rows: np.ndarray, near: np.ndarray) -> _Rows:
    vectors, rng = features.vectors, np.random.default_rng(seed_for("compare", "noise"))
    n = min(len(vectors), LOOKED_AT)
    drawn = vectors[np.sort(rng.choice(len(vectors), n, replace=False))]
    centred = drawn - drawn.mean(axis=0)
    noise = rng.standard_normal((n, n), np.float32) @ centred
    is_structured = _mean_distance(centred) < NEARER * _mean_distance(noise)
    return _Rows(features.name, features.identified, near, vectors[rows].any(axis=1), is_structured)


def _mean_distance(features: np.ndarray) -> float:
    unit = unit_rows(features)[0]
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    return float(1 - cosines.max(axis=1).mean())
