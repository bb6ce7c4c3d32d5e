"""One uniform negative for every train pair. Letters: U users, I items, N train pairs."""

import numpy as np

from pipeline.errors import UserError
from pipeline.interactions.split import Pairs, Split, contains, keys


class Sampler:
    """Train pairs with negatives, a whole epoch in a few array operations."""

    def __init__(self, split: Split, by_time: bool = False) -> None:
        """Users who have every train item have no negative: their pairs are left out.

        Args:
            by_time: whether they come in the order of time; else in random order.

        Raises:
            UserError: by time, where the source has no times.
        """
        if by_time and split.times is None:
            raise UserError("'train.by_time': the source has no times; leave it out")
        self.items = np.unique(split.train.items)
        self.n_items = split.n_items
        self.taken = keys(split.train, split.n_items)
        full = np.bincount(split.train.users, minlength=split.n_users) == len(self.items)
        kept = ~full[split.train.users]
        self.pairs = Pairs(split.train.users[kept], split.train.items[kept])
        self.order = np.argsort(split.times[kept], kind="stable") if by_time and split.times is not None else None

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """Return int64 [3, N]: users, positives, negatives, in their order.

        A negative is uniform over the items of train and redrawn while its user has it in train.
        """
        order = rng.permutation(len(self.pairs)) if self.order is None else self.order
        users = self.pairs.users[order].astype(np.int64)
        negatives = self._draw(rng, len(users))
        wrong = np.arange(len(users))
        while len(wrong := wrong[contains(self.taken, users[wrong] * self.n_items + negatives[wrong])]):
            negatives[wrong] = self._draw(rng, len(wrong))
        return np.stack([users, self.pairs.items[order].astype(np.int64), negatives])

    def _draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return self.items[rng.integers(0, len(self.items), n)].astype(np.int64)
