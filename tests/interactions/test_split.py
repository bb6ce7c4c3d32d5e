import numpy as np
import pytest
from shops import interactions

from alignrec.pipeline.errors import UserError
from alignrec.pipeline.interactions import split
from alignrec.pipeline.interactions.split import contains_keys, limit_users, load_split, pair_keys


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
