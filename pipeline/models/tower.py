"""One modality's tower of DRAGON, MENTOR and COHESION: tastes beside encoded features, over the user-item graph.

Letters: U users, I items, F_m width of the modality, D width, M modalities.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.models.base import Batch, bpr, pick
from pipeline.models.dualgnn import encoder
from pipeline.models.lightgcn import propagate
from pipeline.models.variants import normal
from pipeline.ops.sparse import Sparse


class Tower(nn.Module):
    """Users' tastes [U, D], and two maps of an item's features."""

    def __init__(self, n_users: int, width: int, dim: int) -> None:
        super().__init__()
        self.taste = normal(n_users, dim)
        self.encode = encoder(width, dim)

    def start(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return layer 0, rows of length 1: [U, D] and [I, D]."""
        return nnf.normalize(self.taste), nnf.normalize(self.encode(features))

    def forward(self, graph: Sparse, features: Tensor, layers: int) -> tuple[Tensor, Tensor]:
        """Return the sum of layers 0 .. L over the user-item graph, [U, D] and [I, D]."""
        user, item = propagate(graph, *self.start(features), layers)
        return user * (layers + 1), item * (layers + 1)


def joined(views: list[tuple[Tensor, Tensor]], weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return views side by side, [U, M D] and [I, M D]; the users' are weighed, but for a single one.

    Args:
        views: of users [U, D] and items [I, D], M of them.
        weights: of each user's views, [U, M].
    """
    users = [user for user, _ in views]
    if len(views) > 1:
        users = [weights[:, m : m + 1] * user for m, user in enumerate(users)]
    return torch.cat(users, 1), torch.cat([item for _, item in views], 1)


def base_2_bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-mean log_2 sigmoid(h_u . h_i+ - h_u . h_i-), as DualGNN's kin have it."""
    return bpr(user, positive, negative) / math.log(2)


def taste_squares(tastes: Iterable[Tensor], batch: Batch) -> Tensor:
    """Return the sum of each table's mean square over the batch's users."""
    return torch.stack([pick(table, batch.users).square().mean() for table in tastes]).sum()
