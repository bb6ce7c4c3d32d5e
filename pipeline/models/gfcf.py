"""GF-CF (Shen et al., CIKM 2021): a linear and an ideal low-pass filter of the user-item graph; nothing is trained.

Letters: U users, I items, b histories, K frequencies.
"""

from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from pipeline.config.base import Count, Weight
from pipeline.models import adjacency
from pipeline.models.base import Inputs, Untrained
from pipeline.models.params import Grid, Train
from pipeline.ops.filters import Filter, plain
from pipeline.ops.sparse import Sparse
from pipeline.ops.svd import right_vectors
from pipeline.seeds import seed_for


class GFCFParams(Train):
    """Keys of GF-CF."""

    grid: ClassVar[Grid] = {"frequencies": [64, 128, 256, 512], "ideal": [0.0, 0.1, 0.2, 0.3, 0.5, 1.0]}
    frequencies: Count = 256  # lowest frequencies that the ideal filter passes: singular vectors of R~
    ideal: Weight = 0.3  # weight of the ideal filter, alpha


class GFCF(Untrained):
    """score(u, .) = r_u (R~^T R~ + ideal D_I^-1/2 V V^T D_I^1/2), R~ = D_U^-1/2 R D_I^-1/2, V its right vectors."""

    Params = GFCFParams

    def __init__(self, inputs: Inputs, params: GFCFParams) -> None:
        super().__init__(inputs, params)
        self.seen = adjacency.seen(inputs.split)
        ideal = Ideal(self.seen, params.frequencies, 0.5, params.ideal, inputs.device)
        self.filter = LowPass(inputs.user_item, ideal, inputs.split.n_items)

    def forward(self) -> tuple[sp.csr_array, Filter]:
        return self.seen, self.filter


class Ideal:
    """The ideal low-pass filter, weight D^-p V V^T D^p, applied to columns."""

    def __init__(self, seen: sp.csr_array, frequencies: int, power: float, weight: float, device: torch.device):
        """Compute the lowest frequencies of R [U, I]; `power` is p of the items' degrees D."""
        degree = seen.sum(axis=0)
        self.weight = weight
        self.before, self.after = (
            torch.from_numpy(np.where(degree > 0, np.maximum(degree, 1) ** p, 0).astype(np.float32)[:, None]).to(device)
            for p in (-power, power)
        )  # [I, 1] each
        vectors = np.zeros((seen.shape[1], 0))
        if frequencies and weight:
            normalised = adjacency.balance(seen).astype(np.float64)
            vectors = right_vectors(normalised, frequencies, seed_for("graph filter", "frequencies"))
        self.vectors = torch.from_numpy(vectors.astype(np.float32)).to(device)  # [I, K]

    def apply(self, x: Tensor) -> Tensor:
        """Filter histories [I, b]."""
        return self.weight * self.after * (self.vectors @ (self.vectors.T @ (self.before * x)))


class LowPass(Filter):
    """R~^T R~ plus an ideal filter."""

    def __init__(self, user_item: Sparse, ideal: Ideal, n_items: int) -> None:
        super().__init__(n_items)
        self.user_item, self.ideal = user_item, ideal

    def apply(self, histories: sp.csr_array) -> Tensor:
        x = plain(histories, self.ideal.vectors.device)
        return (self.user_item.T.dot(self.user_item.dot(x)) + self.ideal.apply(x)).T
