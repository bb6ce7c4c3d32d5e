"""What the published reference implementations compute where the papers say otherwise.

Letters: U users, I items, F_m width of modality m, M modalities, B batch, D width.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.models.params import Train


class Varied(Train):
    """Training of a model whose reference implementation departs from its paper."""

    variant: Literal["reference", "paper"] = "reference"
    """reference: as the published code computes it, with which published tables are made; paper: its equations"""


def normal(rows: int, width: int) -> nn.Parameter:
    """Return a table [rows, width] drawn as Xavier normal, from torch's global generator."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, width)))


def normal_pair(n_users: int, n_items: int, width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return tables [U, width] and [I, width] drawn as one: its number of rows decides the spread."""
    user, item = normal(n_users + n_items, width).detach().split([n_users, n_items])
    return nn.Parameter(user.clone()), nn.Parameter(item.clone())


def pair_squares(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean square of [B, D] rows of users, plus that of both items of each user."""
    return user.square().mean() + (positive.square().mean() + negative.square().mean()) / 2


def norms(*tables: Tensor, divisor: int) -> Tensor:
    """Return sum_t |t| / divisor, |t| the Frobenius norm of a table, not squared: a table's rows share one length."""
    return torch.stack([torch.linalg.vector_norm(table) for table in tables]).sum() / divisor


def guarded_bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-mean log(1e-10 + sigmoid(h_u . h_i+ - h_u . h_i-)) over [B, D] rows: a pair costs at most 23."""
    return -(1e-10 + torch.sigmoid((user * (positive - negative)).sum(1))).log().mean()


def learned(modalities: Iterable[Tensor]) -> nn.ParameterList:
    """Return features M x [I, F_m] as parameters that start as they are given: in the references they learn."""
    return nn.ParameterList([modality.clone() for modality in modalities])
