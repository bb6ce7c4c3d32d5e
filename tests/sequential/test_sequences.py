"""Leave-one-out by hand: who is last, what ties and missing times do, and what a history holds."""

import numpy as np
import pytest
from sequential_toys import cycle, table

from pipeline.errors import UserError
from pipeline.sequential import sequences
from pipeline.sequential.loop import cut_windows

ROWS: list[tuple[int, int, int | None]] = [
    (0, 5, 30), (0, 1, 10), (0, 4, 20), (0, 2, 40),
    (1, 7, 9), (1, 3, 9), (1, 6, 9),
    (2, 1, 1), (2, 2, 2),
    (3, 0, 5), (3, 1, 6), (3, 0, 7), (3, 2, 8),
    (4, 1, 1), (4, 2, None), (4, 3, 3), (4, 4, 4),
]  # fmt: skip


def test_the_last_is_test_and_the_one_before_valid() -> None:
    data = sequences.load(table(ROWS), 6, 8)
    assert data.users.tolist() == [0, 1, 3, 4]
    assert [data.items[a:b].tolist() for a, b in zip(data.start, data.start[1:], strict=False)] == [
        [1, 4, 5, 2],  # in time order
        [3, 6, 7],  # equal times: by item
        [0, 1, 2],  # a repeated pair counts at its first time
        [1, 3, 4],  # without the one that has no time
    ]
    split = data.split()
    assert list(zip(split.train.users.tolist(), split.train.items.tolist(), strict=True)) == [
        (0, 1), (0, 4), (1, 3), (3, 0), (4, 1),
    ]  # fmt: skip
    assert (split.valid.users.tolist(), split.valid.items.tolist()) == ([0, 1, 3, 4], [5, 6, 1, 3])
    assert (split.test.users.tolist(), split.test.items.tolist()) == ([0, 1, 3, 4], [2, 7, 2, 4])


def test_what_is_left_out_is_counted() -> None:
    assert sequences.load(table(ROWS), 6, 8).dropped == {
        "interaction without a time": 1,
        "pair repeated": 1,
        "interaction of a user with fewer than 3 items": 2,
    }


def test_the_order_of_rows_does_not_matter() -> None:
    one = sequences.load(table(ROWS), 6, 8)
    other = sequences.load(table([ROWS[i] for i in np.random.default_rng(0).permutation(len(ROWS))]), 6, 8)
    assert np.array_equal(one.items, other.items)
    assert np.array_equal(one.start, other.start)


def test_a_history_ends_before_its_target_and_what_was_had_is_seen() -> None:
    data = sequences.load(table(ROWS), 6, 8)
    rows = np.arange(2)
    assert data.windows(rows, data.last("valid")[rows], 3).tolist() == [[-1, 1, 4], [-1, -1, 3]]
    assert data.windows(rows, data.last("test")[rows], 3).tolist() == [[1, 4, 5], [-1, 3, 6]]
    assert data.windows(rows, data.last("test")[rows], 2).tolist() == [[4, 5], [3, 6]]  # the latest
    assert [np.flatnonzero(x).tolist() for x in data.seen(rows, "test")] == [[1, 4, 5], [3, 6]]
    assert [np.flatnonzero(x).tolist() for x in data.seen(rows, "valid")] == [[1, 4], [3]]


@pytest.mark.parametrize("step", [1, 2, 4, 9])
def test_windows_hold_every_train_item_but_the_first_once_as_a_target(step: int) -> None:
    data = cycle(users=3, length=9)
    rows, ends = cut_windows(data, step)
    targets = [
        (row, place) for row, end in zip(rows.tolist(), ends.tolist(), strict=True)
        for place in range(max(end - step, int(data.start[row]) + 1), end)
    ]  # fmt: skip
    expected = [(row, place) for row in range(3) for place in range(9 * row + 1, 9 * row + 7)]
    assert sorted(targets) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [([(0, 1, None)], "needs times, and this source has none"), ([(0, 1, 1), (0, 2, 2)], "users with 3 items")],
)
def test_what_cannot_be_divided_is_refused(rows: list[tuple[int, int, int | None]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sequences.load(table(rows), 1, 3)
