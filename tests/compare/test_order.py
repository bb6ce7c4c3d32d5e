"""A file whose rows are out of order is reported; random or different sets are not."""

from collections.abc import Iterator

import numpy as np
import pytest

from alignrec.pipeline.compare import similarity
from alignrec.pipeline.compare.feature_set import FeatureSet

ITEMS, WIDTH = 300, 24


def sets() -> dict[str, np.ndarray]:
    """Return feature sets of one catalogue: two encoders of the same content, and others."""
    rng = np.random.default_rng(3)
    kinds = rng.standard_normal((60, WIDTH))[rng.integers(0, 60, ITEMS)]
    seen = {name: kinds @ rng.standard_normal((WIDTH, WIDTH)) + rng.standard_normal((ITEMS, WIDTH)) for name in "ab"}
    elsewhere = rng.standard_normal((60, WIDTH))[rng.integers(0, 60, ITEMS)]
    made = seen | {
        "permuted": seen["b"][rng.permutation(ITEMS)],
        "random": rng.standard_normal((ITEMS, WIDTH)),
        "uniform": rng.random((ITEMS, WIDTH)),
        "few directions": rng.standard_normal((ITEMS, 3)) @ rng.standard_normal((3, WIDTH)),
        "hardly alike": 4 * elsewhere + 1.3 * kinds + rng.standard_normal((ITEMS, WIDTH)),
    }
    made["half empty"] = seen["a"] * (rng.random((ITEMS, 1)) < 0.5)
    made["half empty, permuted"] = made["half empty"][rng.permutation(ITEMS)]
    return {name: vectors.astype(np.float32) for name, vectors in made.items()}


SETS = sets()
NEAR = {name: similarity.find_neighbours(vectors, 10) for name, vectors in SETS.items()}


def doubted(*names: str, sure: str = "a", others: str = "") -> list[str]:
    """Return the sets reported; `sure` and `others` have identifiers, and `others` are not compared."""
    spare: Iterator[FeatureSet] = (FeatureSet(name, "", SETS[name]) for name in others)
    given = [FeatureSet(name, "", SETS[name], identified=name in sure) for name in names]
    return [found["features"] for found in similarity.find_misordered(given, np.arange(ITEMS), NEAR, spare)]


@pytest.mark.parametrize("name", ["permuted", "half empty, permuted"])
def test_permuted_rows_are_named(name: str) -> None:
    assert doubted("a", "b", name) == [name]
    assert doubted("a", name, others="b") == [name]  # as the other sets of the dataset say
    assert doubted(name, others="ab") == [name]
    assert doubted("a", "b", name, sure="") == [name]  # three files without identifiers: two agree


@pytest.mark.parametrize("name", ["b", "random", "uniform", "few directions", "hardly alike", "half empty"])
def test_neither_random_sets_nor_sets_that_differ_are_named(name: str) -> None:
    assert doubted("a", "b", name, sure="ab" if name != "b" else "a") == []
    assert doubted("a", name, others="b") == []


def test_sets_with_identifiers_are_not_doubted_nor_those_without_a_witness() -> None:
    assert doubted("a", "b", "permuted", sure="abpermuted") == []
    assert doubted("a", "permuted") == []
    assert doubted("random", "permuted", sure="random", others="a") == []
