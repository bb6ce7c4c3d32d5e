"""Shapes and similarity of feature sets, items whose neighbours change most, and sets in a doubtful order of rows.

The rows of a file without identifiers seem to lie in another order than the items if three things hold: two other sets
share many more neighbours than chance; this set shares with both no more than if its rows were permuted; and its
neighbours are nearer than in noise of the same covariance (a random control has no order to be wrong). Zero rows do
not count. No I x I matrix is held.

I items, R of them whose neighbours are known, F and G feature widths, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.compare.feature_set import FeatureSet
from pipeline.ops import shapes
from pipeline.ops.linalg import unit_rows
from pipeline.probe.questions import sample
from pipeline.seeds import seed_for

NEIGHBOURS = 10
PERMUTATIONS = 20
BY_CHANCE = 3.0
"""threshold of chance, in standard deviations over permuted rows"""
MANY = 3.0
"""threshold of many shared neighbours, as a multiple of chance"""
ENOUGH = 10
"""least number of shared neighbours: among a million items, chance is below one"""
LOOKED_AT = 2000
"""upper bound on items compared with noise"""
NEARER = 0.8
"""threshold, as a fraction of noise's distance to the nearest: random sets of `sample` reach 1.00, encoders 0.51"""


def neighbours(features: np.ndarray, k: int, rows: np.ndarray | None = None, scores_held: int = 1 << 24) -> np.ndarray:
    """Return the ids of the K nearest others by cosine, int32 [R, K], ascending; ties within 1e-6 go to lower ids.

    `rows` are the items to search for, int [R], by default all; `scores_held` bounds memory.
    """
    unit, n = unit_rows(features)[0], len(features)
    rows = np.arange(n) if rows is None else rows
    block = max(1, scores_held // engine.CORES // n)

    def of_block(at: int) -> np.ndarray:
        own = rows[at : at + block]
        # one whole number orders by score, then by id: partitioning it breaks ties the same way everywhere
        key = -np.rint((unit[own] @ unit.T) * 1e6).astype(np.int64) * n + np.arange(n)
        key[np.arange(len(own)), own] = np.iinfo(np.int64).max
        return np.sort(np.argpartition(key, k - 1, axis=1)[:, :k], axis=1).astype(np.int32)

    return np.concatenate(list(engine.threads(of_block, range(0, len(rows), block))))


def nearest(features: np.ndarray, items: Sequence[int], k: int) -> dict[int, list[int]]:
    """Return item -> its K nearest others, best first, of a few items; ties as in `neighbours`."""
    unit = unit_rows(features)[0]
    scores = np.rint((unit[items] @ unit.T) * 1e6)
    scores[np.arange(len(items)), items] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return dict(zip(map(int, items), best.tolist(), strict=True))


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the fraction of common neighbours, int [R, K] each: float64 [R]."""
    n, k = a.shape
    offset = np.arange(n, dtype=np.int64)[:, None] * (int(max(a.max(), b.max())) + 1)
    return np.isin(a + offset, b + offset).sum(axis=1) / k


def compared(sets: Sequence[FeatureSet], changed: int, others: Iterable[FeatureSet] = ()) -> dict[str, Any]:
    """Return `sets` (shapes), `pairs` (similarity, most changed items) and `order` (see doubtful).

    In a large catalogue only a sample of items is searched: their number is `sampled`, with `overlap_se`. `changed`
    items are named per pair.
    """
    items = len(sets[0].vectors)
    k, rows = min(NEIGHBOURS, items - 1), sample(np.arange(items), items, seed_for("compare", "neighbours"))
    near = {g.name: neighbours(g.vectors, k, rows) for g in sets}
    spectra = {g.name: shapes.spectrum(g.vectors) for g in sets}
    pairs = []
    for a, b in combinations(sets, 2):
        share = overlap(near[a.name], near[b.name])
        pair = {"a": a.name, "b": b.name, "neighbours": k, "overlap": round(float(share.mean()), 6)}
        if len(rows) < items:
            pair |= {"sampled": len(rows), "overlap_se": round(float(share.std() / len(rows) ** 0.5), 6)}
        cka = shapes.linear_cka(a.vectors, b.vectors, spectra[a.name], spectra[b.name])
        lowest = np.argsort(share, kind="stable")[:changed]
        most = [{"item_id": int(rows[i]), "overlap": round(float(share[i]), 6)} for i in lowest]
        pairs.append(pair | {"cka": round(cka, 6), "most_changed": most})
    found = {g.name: shapes.shape(g.vectors, spectra[g.name])._asdict() for g in sets}
    rounded = {n: {k: round(v, 6) if isinstance(v, float) else v for k, v in s.items()} for n, s in found.items()}
    return {"sets": rounded, "pairs": pairs, "order": doubtful(sets, rows, near, others)}


@dataclass(frozen=True, eq=False)
class _Set:
    """A feature set and its neighbours."""

    features: FeatureSet
    rows: np.ndarray
    """int [R], ascending"""
    near: np.ndarray
    """int [R, K]"""

    @cached_property
    def directed(self) -> np.ndarray:
        return np.asarray(self.features.vectors.any(axis=1))

    @cached_property
    def is_structured(self) -> bool:
        vectors, rng = self.features.vectors, np.random.default_rng(seed_for("compare", "noise"))
        n = min(len(vectors), LOOKED_AT)
        rows = vectors[np.sort(rng.choice(len(vectors), n, replace=False))]
        centred = rows - rows.mean(axis=0)
        noise = rng.standard_normal((n, n), np.float32) @ centred
        return _mean_distance(centred) < NEARER * _mean_distance(noise)

    @property
    def chance(self) -> float:
        return self.near.shape[1] / max(len(self.directed) - 1, 1)

    def share(self, other: _Set, place: np.ndarray | None = None) -> float:
        """Return the fraction of common neighbours, with row i of this set moved to place[i] if given."""
        near, directed = self.near, self.directed
        if place is not None:
            near, directed = np.empty_like(near), np.empty_like(directed)
            near[np.searchsorted(self.rows, place[self.rows])], directed[place] = place[self.near], self.directed
        both = (directed & other.directed)[self.rows]
        return float(overlap(near, other.near)[both].mean()) if both.any() else 0.0

    def is_by_chance(self, other: _Set) -> bool:
        actual, rng = self.share(other), np.random.default_rng(seed_for("compare", "order"))
        if actual >= MANY * self.chance:
            return False
        shares = []
        for _ in range(PERMUTATIONS):
            place = np.arange(len(self.directed))
            for part in (self.rows, np.delete(place, self.rows)):  # rows that were searched stay among themselves
                place[part] = part[rng.permutation(len(part))]
            shares.append(self.share(other, place))
        return bool(actual <= np.mean(shares) + BY_CHANCE * np.std(shares, ddof=1))

    def is_like(self, other: _Set) -> bool:
        shared = self.share(other)
        many = shared >= MANY * self.chance and shared * self.near.size >= ENOUGH
        return many and self.is_structured and other.is_structured


def doubtful(
    sets: Sequence[FeatureSet],
    rows: np.ndarray,
    neighbours: Mapping[str, np.ndarray],
    others: Iterable[FeatureSet] = (),
) -> list[dict[str, Any]]:
    """Return sets whose rows seem to lie in another order: features, neighbours K, overlap with two others, chance.

    `neighbours` are those of `rows`, ascending; `others` are more sets of the same items, read only as needed.
    """
    found, spare = [], iter(others)
    known = {g.name: _Set(g, rows, neighbours[g.name]) for g in sets}
    for name, one in [(name, g) for name, g in known.items() if not g.features.identified]:
        rest = [g for g in known.values() if g is not one]
        sure = [g for g in rest if g.features.identified] or rest
        if not all(one.is_by_chance(other) for other in sure) or not one.is_structured:
            continue
        for a, b in _alike(one, known, spare):
            if one.is_by_chance(a) and one.is_by_chance(b):
                shares = {other.features.name: round(one.share(other), 6) for other in (a, b)}
                doubt = {"features": name, "neighbours": one.near.shape[1], "overlap": shares}
                found.append(doubt | {"shared": round(a.share(b), 6), "chance": round(one.chance, 6)})
                break
    return found


def _alike(one: _Set, known: dict[str, _Set], spare: Iterator[FeatureSet]) -> Iterator[tuple[_Set, _Set]]:
    """Yield pairs of other sets that are alike, one of them with identifiers if any set has them."""
    some = any(other.features.identified for other in known.values())
    given = [other for other in known.values() if other is not one]
    pairs = ((a, b) for a, b in combinations(given, 2) if not some or a.features.identified or b.features.identified)
    yield from ((a, b) for a, b in pairs if a.is_like(b))
    for more in spare:
        if more.name not in known:
            other = known[more.name] = _Set(more, one.rows, neighbours(more.vectors, one.near.shape[1], one.rows))
            yield from ((a, other) for a in given if a.is_like(other))
            given.append(other)


def _mean_distance(features: np.ndarray) -> float:
    unit = unit_rows(features)[0]
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    return float(1 - cosines.max(axis=1).mean())
