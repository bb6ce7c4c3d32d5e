"""Linear maps from histories to scores, [I, I], mostly never held as a matrix. Letters: I items, b histories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from pipeline.ops.sparse import Sparse


class Filter(ABC):
    """Replacement of item vectors in a model without them: with histories R [U, I], F[i] . r_u is the score."""

    def __init__(self, n_items: int) -> None:
        self.n_items, self.kept = n_items, torch.arange(n_items)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.kept), self.n_items

    def __getitem__(self, rows: np.ndarray | Tensor) -> Filter:
        part = copy(self)
        part.kept = self.kept[torch.as_tensor(rows).long()]
        return part

    def scores(self, histories: sp.csr_array) -> Tensor:
        out = self.apply(histories)
        return out if len(self.kept) == self.n_items else out[:, self.kept.to(out.device)]

    @abstractmethod
    def apply(self, histories: sp.csr_array) -> Tensor:
        """Return the scores of all items, float32 [b, I]."""


class Dense(Filter):
    """A filter that is its matrix: row j is what item j in a history adds to the scores."""

    def __init__(self, matrix: Tensor) -> None:
        """Take float32 [I, I]; it is not copied."""
        super().__init__(len(matrix))
        self.matrix = matrix

    def apply(self, histories: sp.csr_array) -> Tensor:
        return Sparse(histories, self.matrix.device).dot(self.matrix)


def plain(histories: sp.csr_array, device: torch.device) -> Tensor:
    """Return histories as dense columns, float32 [I, b]."""
    return torch.from_numpy(histories.toarray()).to(device).T.contiguous()
