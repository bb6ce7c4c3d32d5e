import numpy as np
import pytest
from shops import interactions

from pipeline.errors import UserError
from pipeline.interactions.split import contains, keys, load


def test_rows_go_where_they_say_in_order() -> None:
    actual = load(interactions([(1, 2, 0), (0, 1, 0), (1, 0, 1), (0, 2, 2)]), 3, 4)
    assert actual.train.users.tolist() == [0, 1]
    assert actual.train.items.tolist() == [1, 2]
    assert (actual.valid.users.tolist(), actual.valid.items.tolist()) == ([1], [0])
    assert (actual.test.users.tolist(), actual.test.items.tolist()) == ([0], [2])
    assert (actual.n_users, actual.n_items, actual.dropped) == (3, 4, {})


def test_repeats_and_strangers_leave_and_are_counted() -> None:
    actual = load(interactions([(0, 1, 0), (0, 1, 0), (0, 2, 1), (1, 2, 1), (1, 0, 2)]), 2, 3)
    assert (len(actual.train), len(actual.valid), len(actual.test)) == (1, 1, 0)
    assert actual.dropped == {"pair repeated in its split": 1, "user without train interactions": 2}


@pytest.mark.parametrize(("row", "column"), [((0, 3, 0), "item_id"), ((5, 0, 0), "user_id")])
def test_an_id_out_of_range_names_column_and_row(row: tuple[int, int, int], column: str) -> None:
    with pytest.raises(UserError, match=f"column '{column}', row 1: {max(row)} is not in"):
        load(interactions([(0, 0, 0), row]), 2, 3)


def test_nothing_to_learn_from_is_an_error() -> None:
    with pytest.raises(UserError, match="no train rows"):
        load(interactions([(0, 0, 1)]), 1, 1)


def test_contains_finds_exactly_the_pairs() -> None:
    pairs = load(interactions([(0, 1, 0), (2, 0, 0), (1, 2, 0)]), 3, 3).train
    asked = np.arange(9).reshape(3, 3)
    assert np.argwhere(contains(keys(pairs, 3), asked)).tolist() == [[0, 1], [1, 2], [2, 0]]
    assert not contains(np.empty(0, np.int64), asked).any()
