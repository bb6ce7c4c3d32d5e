"""Co-occurrence counts and cosines, against sets and fractions."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp

from alignrec.pipeline.interactions import cooccurrence

USERS, ITEMS = 30, 20


@pytest.fixture(params=[1, 7, 100])
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> sp.csr_array:
    """Purchases, some repeated, with a given block size."""
    monkeypatch.setattr(cooccurrence, "BLOCK", request.param)
    user, item = np.random.default_rng(0).integers(0, (USERS, ITEMS), (200, 2)).T
    return cooccurrence.user_item_matrix(user, item, ITEMS)


def test_scores_are_the_formula_and_equal_ones_are_equal_floats(seen: sp.csr_array) -> None:
    buyers = [set(column.nonzero()[0].tolist()) for column in seen.toarray().T]
    slow = {
        (i, j): Fraction(len(a & b) ** 2, len(a) * len(b))
        for i, a in enumerate(buyers)
        for j, b in enumerate(buyers)
        if i != j and a & b
    }
    ours = {
        (block[i], j): score[i, j]
        for block, score in cooccurrence.squared_cosines(seen)
        for i, j in zip(*map(np.ndarray.tolist, score.nonzero()), strict=True)
    }
    assert ours == {pair: float(score) for pair, score in slow.items()}


def test_what_users_have_in_common_is_counted(seen: sp.csr_array) -> None:
    plain = seen.toarray() @ seen.toarray().T
    np.fill_diagonal(plain, 0)
    blocks = [counts.toarray() for _, counts in cooccurrence.count_cooccurrences(seen)]
    assert np.array_equal(np.concatenate(blocks), plain)


def test_the_largest_of_a_row_are_kept_and_of_equal_ones_the_first() -> None:
    matrix = sp.csr_array(np.array([[1, 3, 3, 0, 3], [0, 0, 0, 0, 0], [0, 2, 0, 0, 1]], np.float32))
    assert cooccurrence.top_k(matrix, 2).toarray().tolist() == [[0, 3, 3, 0, 0], [0] * 5, [0, 2, 0, 0, 1]]
