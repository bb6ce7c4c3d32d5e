""""""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from shops import interactions

from alignrec.pipeline.interactions import cooccurrence, split
from alignrec.pipeline.interactions.split import contains_keys, limit_users, load_split, pair_keys
from alignrec.pipeline.io.errors import UserError


def test_rows_go_where_they_say_in_order_and_repeats_and_strangers_leave() -> None:
    rows = [(2, 2, 0), (0, 1, 0), (0, 1, 0), (0, 2, 1), (1, 2, 1), (1, 0, 2), (2, 3, 2)]
    actual = load_split(interactions(rows), 3, 4)
    pairs = [(p.users.tolist(), p.items.tolist()) for p in (actual.train, actual.valid, actual.test)]
    assert pairs == [([0, 2], [1, 2]), ([0], [2]), ([2], [3])]
    assert actual.dropped == {"pair repeated in its split": 1, "user without train interactions": 2}


@pytest.mark.parametrize(("row", "column"), [((0, 3, 0), "item_id"), ((5, 0, 0), "user_id")])
def test_an_id_out_of_range_names_column_and_row(row: tuple[int, int, int], column: str) -> None:
    with pytest.raises(UserError, match=f"'{column}', row 1: {max(row)} "):
        load_split(interactions([(0, 0, 0), row]), 2, 3)
    with pytest.raises(UserError, match="no train rows"):
        load_split(interactions([(0, 0, 1)]), 1, 1)


def test_contains_finds_exactly_the_pairs() -> None:
    pairs = load_split(interactions([(0, 1, 0), (2, 0, 0), (1, 2, 0)]), 3, 3).train
    wanted = np.arange(9).reshape(3, 3)
    assert np.argwhere(contains_keys(pair_keys(pairs, 3), wanted)).tolist() == [[0, 1], [1, 2], [2, 0]]
    assert not contains_keys(np.empty(0, np.int64), wanted).any()


def test_of_a_large_catalogue_drawn_users_are_asked_for_all_of_their_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(u, i, part) for u in range(50) for i, part in ((u % 7, 0), (7, 1), (8, 2))]
    parts = load_split(interactions(rows), 50, 10)
    assert limit_users(parts) is parts
    monkeypatch.setattr(split, "SCORES", 129)
    few = limit_users(parts)
    assert len(np.unique(few.test.users)) == 12
    assert few.valid.users.tolist() == few.test.users.tolist()
    assert {*few.test.items.tolist()} == {8}
    assert few.dropped == {split.NOT_DRAWN: 2 * 38}
    np.testing.assert_array_equal(few.train.users, parts.train.users)
    np.testing.assert_array_equal(limit_users(parts).test.users, few.test.users)


# --- co-occurrence counts and cosines, against sets and fractions


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
