"""One uniform negative for every train pair. Letters: U users, I items, N train pairs."""

import numpy as np

from pipeline.interactions.split import Pairs, Split, contains, keys


class Sampler:
    """Train pairs with negatives, a whole epoch in a few array operations."""

    def __init__(self, split: Split) -> None:
        """Users who have every train item have no negative: their pairs are left out."""
        self.items = np.unique(split.train.items)
        self.n_items = split.n_items
        self.taken = keys(split.train, split.n_items)
        full = np.bincount(split.train.users, minlength=split.n_users) == len(self.items)
        kept = ~full[split.train.users]
        self.pairs = Pairs(split.train.users[kept], split.train.items[kept])

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """Return int64 [3, N]: users, positives, negatives, in `order`.

        A negative is uniform over the items of train and redrawn while its user has it in train.
        """
        order = self.order(rng)
        users = self.pairs.users[order].astype(np.int64)
        negatives = self._draw(rng, len(users))
        wrong = np.arange(len(users))
        while len(wrong := wrong[contains(self.taken, users[wrong] * self.n_items + negatives[wrong])]):
            negatives[wrong] = self._draw(rng, len(wrong))
        return np.stack([users, self.pairs.items[order].astype(np.int64), negatives])

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(self.pairs))

    def _draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return self.items[rng.integers(0, len(self.items), n)].astype(np.int64)
