"""Users' sequences of items in the order of time, and what is to be predicted from which history.

Predicted are: in train, every item of a user but the first, from those before; in valid, from all of train; in test,
from train and valid. Under leave-one-out these are the usual ones.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

import schemas
from pipeline.errors import UserError
from pipeline.export.content import ExportContent


class Example(NamedTuple):
    """One item to predict."""

    user: int
    history: np.ndarray
    """int32, oldest first; not empty"""
    target: int


class Sequences:
    """The interactions by user, each user's in the order of time; equal times keep the table's order."""

    def __init__(self, content: ExportContent) -> None:
        table = content.interactions
        assert table is not None
        if content.clock() == "none" or table["timestamp"].null_count:
            raise UserError(f"{content.name}: sequences need an order, and the interactions have no timestamps")
        user, time = table["user_id"].to_numpy(), table["timestamp"].to_numpy()
        order = np.lexsort((time, user))  # stable
        self._item, self._split = table["item_id"].to_numpy()[order], table["split"].to_numpy()[order]
        self.users, self._starts = np.unique(user[order], return_index=True)
        self._ends = np.append(self._starts[1:], len(order))

    def whole(self) -> Iterator[tuple[int, np.ndarray]]:
        for user, start, end in zip(self.users.tolist(), self._starts, self._ends, strict=True):
            yield user, self._item[start:end]

    def _of(self, splits: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        for user, start, end in zip(self.users.tolist(), self._starts, self._ends, strict=True):
            yield user, self._item[start:end][np.isin(self._split[start:end], list(splits))]

    def examples(self, split: int) -> Iterator[Example]:
        if split == schemas.TRAIN:
            for user, items in self._of({split}):
                for at in range(1, len(items)):
                    yield Example(user, items[:at], int(items[at]))
        else:
            histories = self._of(set(range(split)))
            for (user, history), (_, targets) in zip(histories, self._of({split}), strict=True):
                for target in targets.tolist() if len(history) else ():
                    yield Example(user, history, target)
