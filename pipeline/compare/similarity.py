"""How feature sets are shaped, how alike two are, which items have other neighbours, and whose order looks wrong.

The rows of a file without identifiers seem to lie in another order than the items where three things say so together.
Two other sets share many more neighbours than chance. The set shares with both no more than if its rows were permuted.
And its neighbours are nearer than in noise of the same covariance: noise is what a random control looks like, in any
order. Items without a direction count nowhere. No I x I matrix is held.

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
from pipeline.ops.rows import unit_rows
from pipeline.probe import sampled
from pipeline.seeds import seed_for

NEIGHBOURS = 10
PERMUTATIONS = 20
BY_CHANCE = 3.0
"""standard deviations over permuted rows up to which a share of neighbours is chance"""
MANY = 3.0
"""times chance from which two sets share many neighbours"""
ENOUGH = 10
"""shared neighbours, at least, that are no chance: among a million items chance is less than one"""
LOOKED_AT = 2000
"""items at most whose nearest is compared with noise's"""
NEARER = 0.8
"""of noise's distance, 1 - cosine, to the nearest: random sets of `sample` have 1.00 to 1.03, encoders 0.18 to 0.51"""


def neighbours(features: np.ndarray, k: int, rows: np.ndarray | None = None, scores_held: int = 1 << 24) -> np.ndarray:
    """Return the K nearest others of items by cosine, int32 [R, K], ascending; equal to 1e-6 they tie, lower ids win.

    Args:
        features: float32 [I, F].
        k: less than I.
        rows: int [R], the items whose neighbours are searched; all by default.
        scores_held: scores held, which bounds memory.
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
    neighbours = {}
    for item in items:  # a few
        scores = np.rint((unit @ unit[item]) * 1e6)
        scores[item] = -np.inf
        neighbours[int(item)] = np.argsort(-scores, kind="stable")[:k].tolist()
    return neighbours


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the share of neighbours, int [R, K] of the same items, that two sets share: float64 [R]."""
    n, k = a.shape
    offset = np.arange(n, dtype=np.int64)[:, None] * (int(max(a.max(), b.max())) + 1)
    return np.isin(a + offset, b + offset).sum(axis=1) / k


def compared(sets: Sequence[FeatureSet], changed: int, others: Iterable[FeatureSet] = ()) -> dict[str, Any]:
    """Return each set's shape, the similarity and most changed items of every two, and whose order looks wrong.

    Neighbours are those of all items, or of a large catalogue of those that are drawn: then `sampled` says how many,
    and `overlap_se` is the standard error.

    Args:
        changed: items named per pair.
        others: see doubtful.
    """
    items = len(sets[0].vectors)
    k, rows = min(NEIGHBOURS, items - 1), sampled.rows(items, seed_for("compare", "neighbours"))
    near = {g.name: neighbours(g.vectors, k, rows) for g in sets}
    spectra = {g.name: shapes.spectrum(g.vectors) for g in sets}
    pairs = []
    for a, b in combinations(sets, 2):
        share = overlap(near[a.name], near[b.name])
        lowest = np.argsort(share, kind="stable")[:changed]
        cka = shapes.linear_cka(a.vectors, b.vectors, spectra[a.name], spectra[b.name])
        drawn = {"sampled": len(rows), "overlap_se": round(float(share.std() / len(rows) ** 0.5), 6)}
        pairs.append(
            {
                "a": a.name,
                "b": b.name,
                "neighbours": k,
                "overlap": round(float(share.mean()), 6),
                **(drawn if len(rows) < items else {}),
                "cka": round(cka, 6),
                "most_changed": [{"item_id": int(rows[i]), "overlap": round(float(share[i]), 6)} for i in lowest],
            }
        )
    found = {g.name: shapes.shape(g.vectors, spectra[g.name])._asdict() for g in sets}
    rounded = {n: {k: round(v, 6) if isinstance(v, float) else v for k, v in s.items()} for n, s in found.items()}
    return {"sets": rounded, "pairs": pairs, "order": doubtful(sets, rows, near, others)}


@dataclass(frozen=True, eq=False)
class _Set:
    """A feature set and its neighbours."""

    name: str
    vectors: np.ndarray
    rows: np.ndarray
    """int [R], ascending"""
    near: np.ndarray
    """int [R, K], see neighbours"""
    identified: bool

    @cached_property
    def directed(self) -> np.ndarray:
        """Whether an item has a direction, bool [I]."""
        return np.asarray(self.vectors.any(axis=1))

    @cached_property
    def structured(self) -> bool:
        """Whether items have nearer neighbours than in noise of the same covariance."""
        rng, n = np.random.default_rng(seed_for("compare", "noise")), min(len(self.vectors), LOOKED_AT)
        rows = self.vectors[np.sort(rng.choice(len(self.vectors), n, replace=False))]
        centred = rows - rows.mean(axis=0)
        noise = rng.standard_normal((n, n), np.float32) @ centred
        return _distance(centred) < NEARER * _distance(noise)

    @property
    def chance(self) -> float:
        """The share of neighbours that unrelated sets share on average, K / (I - 1)."""
        return self.near.shape[1] / max(len(self.vectors) - 1, 1)

    def share(self, other: _Set, place: np.ndarray | None = None) -> float:
        """Return the share of neighbours that both sets have; row i of this one moved to place[i], if that is given."""
        near, directed = self.near, self.directed
        if place is not None:
            near, directed = np.empty_like(near), np.empty_like(directed)
            near[np.searchsorted(self.rows, place[self.rows])], directed[place] = place[self.near], self.directed
        both = (directed & other.directed)[self.rows]
        return float(overlap(near, other.near)[both].mean()) if both.any() else 0.0

    def by_chance(self, other: _Set) -> bool:
        """Return whether it shares no more neighbours than if its rows were permuted."""
        actual, rng = self.share(other), np.random.default_rng(seed_for("compare", "order"))
        if actual >= MANY * self.chance:
            return False
        shares = [self.share(other, self._places(rng)) for _ in range(PERMUTATIONS)]
        return bool(actual <= np.mean(shares) + BY_CHANCE * np.std(shares, ddof=1))

    def _places(self, rng: np.random.Generator) -> np.ndarray:
        """Return a place for each item, int [I]: those whose neighbours are known change places with each other."""
        places = np.arange(len(self.vectors))
        for part in (self.rows, np.delete(places, self.rows)):
            places[part] = part[rng.permutation(len(part))]
        return places

    def like(self, other: _Set) -> bool:
        """Return whether both have a structure, and share many neighbours."""
        shared = self.share(other)
        many = shared >= MANY * self.chance and shared * self.near.size >= ENOUGH
        return many and self.structured and other.structured


def doubtful(
    sets: Sequence[FeatureSet],
    rows: np.ndarray,
    neighbours: Mapping[str, np.ndarray],
    others: Iterable[FeatureSet] = (),
) -> list[dict[str, Any]]:
    """Return the sets whose rows seem to lie in another order, with what says so.

    Args:
        rows: int [R], ascending, the items whose neighbours are given.
        neighbours: name -> int [R, K], see neighbours.
        others: sets of the same items, read one by one only where a set is like none that it is compared with.

    Returns:
        for each: features, neighbours K, overlap with two other sets, which share `shared`, and `chance`.
    """
    found, spare = [], iter(others)
    known = {g.name: _Set(g.name, g.vectors, rows, neighbours[g.name], g.identified) for g in sets}
    for one in [g for g in known.values() if not g.identified]:
        rest = [g for g in known.values() if g is not one]
        sure = [g for g in rest if g.identified] or rest
        if not all(one.by_chance(other) for other in sure) or not one.structured:
            continue
        for a, b in _alike(one, known, spare):
            if one.by_chance(a) and one.by_chance(b):
                found.append(_facts(one, a, b))
                break
    return found


def _alike(one: _Set, known: dict[str, _Set], spare: Iterator[FeatureSet]) -> Iterator[tuple[_Set, _Set]]:
    """Yield every two other sets that are like each other; where some name their rows, one of the two does."""
    some = any(other.identified for other in known.values())
    given = [other for other in known.values() if other is not one]
    yield from ((a, b) for a, b in combinations(given, 2) if (a.identified or b.identified or not some) and a.like(b))
    for more in spare:
        if more.name not in known:
            near = neighbours(more.vectors, one.near.shape[1], one.rows)
            other = known[more.name] = _Set(more.name, more.vectors, one.rows, near, more.identified)
            yield from ((a, other) for a in given if a.like(other))
            given.append(other)


def _facts(one: _Set, a: _Set, b: _Set) -> dict[str, Any]:
    return {
        "features": one.name,
        "neighbours": one.near.shape[1],
        "overlap": {other.name: round(one.share(other), 6) for other in (a, b)},
        "shared": round(a.share(b), 6),
        "chance": round(one.chance, 6),
    }


def _distance(features: np.ndarray) -> float:
    """Return the mean of 1 - cosine to the nearest other item, of float32 [I, F]."""
    unit = unit_rows(features)[0]
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    return float(1 - cosines.max(axis=1).mean())
