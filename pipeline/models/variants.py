"""What the published reference implementations compute where the papers say otherwise.

Letters: B batch, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.config.train import Train


class Varied(Train):
    """Training of a model whose reference implementation departs from its paper."""

    variant: Literal["reference", "paper"] = "reference"
    """reference: as the published code computes it, with which published tables are made; paper: its equations"""


def normal(rows: int, width: int) -> nn.Parameter:
    """Return a table [rows, width] drawn as Xavier normal, from torch's global generator."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, width)))


def norms(*tables: Tensor, divisor: int) -> Tensor:
    """Return sum_t |t| / divisor, |t| the Frobenius norm of a table, not squared: a table's rows share one length."""
    return torch.stack([torch.linalg.vector_norm(table) for table in tables]).sum() / divisor


def guarded_bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-mean log(1e-10 + sigmoid(h_u . h_i+ - h_u . h_i-)) over [B, D] rows: a pair costs at most 23."""
    return -(1e-10 + torch.sigmoid((user * (positive - negative)).sum(1))).log().mean()
