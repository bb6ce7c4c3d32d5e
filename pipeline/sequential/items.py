"""What stands for an item in a sequence: an ID of its own, a map of its features, or both. I items, F, D widths."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sequential.params import Reads


class Items(nn.Module):
    """The table of item vectors, e_i = id_i + W f_i or one of the two; f_i centred and of length 1."""

    def __init__(self, n_items: int, dim: int, reads: Reads = "ids", features: Tensor | None = None) -> None:
        """Draw the IDs as torch does, and W so that W f_i has a length near 1.

        Args:
            features: float32 [I, F], unless IDs alone are read; a row of zeros is an item without content.

        Raises:
            ValueError: features are read, and there are none.
        """
        super().__init__()
        self.ids = nn.Embedding(n_items + 1, dim, padding_idx=0) if reads != "features" else None  # item i is row i + 1
        self.project: nn.Linear | None = None
        if reads != "ids":
            if features is None:
                raise ValueError(f"{reads}: there are no features")
            self.register_buffer("features", directions(features), persistent=False)  # [I + 1, F]
            self.project = nn.Linear(features.shape[1], dim, bias=False)
            nn.init.normal_(self.project.weight, std=dim**-0.5)

    def forward(self) -> Tensor:
        """Return [I + 1, D], row 0 for padding, zeros."""
        if self.project is None:
            assert self.ids is not None
            return self.ids.weight
        content = self.project(self.features)
        return content if self.ids is None else self.ids.weight + content


def directions(features: Tensor) -> Tensor:
    """Return features less their mean, of length 1, behind a row of zeros; an item without content keeps zeros."""
    has_content = features.any(1, keepdim=True)
    mean = features.sum(0) / has_content.sum().clamp(min=1)
    rows = F.normalize((features - mean) * has_content)
    return torch.cat([rows.new_zeros(1, rows.shape[1]), rows])
