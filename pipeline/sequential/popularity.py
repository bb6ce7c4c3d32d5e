"""The trivial control: to everyone the items that most users have in train. Letters: b users, I items, K cutoff."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.ops.topk import select
from pipeline.sequential.sequences import Sequences


class Popularity:
    """Ranks items by their train interactions, equal ones by item_id."""

    def __init__(self, sequences: Sequences) -> None:
        """Count train interactions."""
        split = sequences.split()
        self.counts = torch.from_numpy(np.bincount(split.train.items, minlength=sequences.n_items)).float()

    def rank(self, histories: Tensor, seen: Tensor, k: int) -> Tensor:
        """Return the K most popular items that the user has not, int64 [b, K]."""
        scores = self.counts.to(seen.device).expand(len(seen), -1).masked_fill(seen, -torch.inf)
        values, ids = select(scores, k)
        return ids.where(values > -torch.inf, -1)
