"""Whether the rows of a file without identifiers lie in another order than the items.

Three things together say so. Two other sets share many more neighbours than chance. The set shares with both no more
than if its rows were permuted. And its neighbours are nearer than in noise of the same covariance: noise is what a
random control looks like, in any order. Items without a direction count nowhere.

I items, R of them whose neighbours are known, F width, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.compare import geometry
from pipeline.compare.feature_set import FeatureSet
from pipeline.ops.rows import unit_rows
from pipeline.seeds import seed_for

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


@dataclass(frozen=True, eq=False)
class _Set:
    """A feature set and its neighbours."""

    name: str
    vectors: np.ndarray
    rows: np.ndarray
    """int [R], ascending"""
    near: np.ndarray
    """int [R, K], see geometry.neighbours"""
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
        return float(geometry.overlap(near, other.near)[both].mean()) if both.any() else 0.0

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
        neighbours: name -> int [R, K], see geometry.neighbours.
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
            near = geometry.neighbours(more.vectors, one.near.shape[1], one.rows)
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
