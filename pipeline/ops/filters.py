"""A linear map from histories to scores, [I, I], in place of item vectors. Letters: I items, b histories."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from pipeline.ops.sparse import Sparse


class Filter:
    """The matrix of a model without item vectors: row j is what item j in a history adds to the scores."""

    def __init__(self, matrix: Tensor, kept: Tensor | None = None) -> None:
        """Take float32 [I, I], which is not copied, and the items to score, all by default."""
        self.matrix = matrix
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
