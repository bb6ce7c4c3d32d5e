"""Item scores from vectors, or from histories. I items, b histories."""

from __future__ import annotations

from typing import TypeAlias, Union

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec.pipeline.linalg.sparse import Sparse


class Filter:
    """Item-item score matrix, float32 [I, I]: row j is the contribution of item j in a history to
    the scores.
    """

    def __init__(self, matrix: Tensor, kept: Tensor | None = None) -> None:
        self.matrix = matrix
        # items to score, all by default
        self.kept = torch.arange(len(matrix)) if kept is None else kept

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.kept), len(self.matrix)

    def __getitem__(self, rows: np.ndarray | Tensor) -> Filter:
        return Filter(self.matrix, self.kept[torch.as_tensor(rows).long()])

    def scores(self, histories: sp.csr_array) -> Tensor:
        """Return the scores of the kept items, float32 [b, I]."""
        out = Sparse(histories, self.matrix.device).dot(self.matrix)
        return out if len(self.kept) == len(self.matrix) else out[:, self.kept.to(out.device)]


# rows of vectors, or a Filter in place of item vectors
Vectors: TypeAlias = Union[np.ndarray, Tensor, sp.csr_array, Filter]  # noqa: UP007
