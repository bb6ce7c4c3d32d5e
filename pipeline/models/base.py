"""The interface of recommenders, and functions that they share.

Letters in shapes of this package: U users, I items, N either, F feature width, F_m width of
modality m, M modalities, E train pairs, B batch, D embedding width.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.scores import Vectors


@dataclass(frozen=True)
class Inputs:
    """Inputs of a recommender; graphs and modalities are computed on first access."""

    split: Split
    features: Tensor | None  # float32 [I, F], the modalities side by side
    edges: pa.Table | None  # item-item neighbours, schema EDGES
    device: torch.device
    parts: tuple[int, ...] = ()  # widths of the modalities in `features`; empty: a single modality

    @cached_property
    def modalities(self) -> list[Tensor]:
        """Columns of `features` per modality, float32 [I, F_m]."""
        assert self.features is not None
        return list(self.features.split(list(self.parts) or self.features.shape[1], dim=1))

    @cached_property
    def modal_edges(self) -> list[pa.Table]:
        """Neighbours by each single modality, schema EDGES, as many per item as in `edges`."""
        assert self.edges is not None
        if len(self.modalities) == 1:
            return [self.edges]
        k = int(self.edges["rank"].to_numpy().max()) + 1
        return [
            neighbours.find_neighbours(modality.cpu().numpy(), k) for modality in self.modalities
        ]

    @cached_property
    def user_item(self) -> Sparse:
        """Symmetrically normalised graph R_hat of the train pairs, [U, I]."""
        return Sparse(
            adjacency.normalise_by_degrees(adjacency.interaction_matrix(self.split)), self.device
        )


@dataclass(frozen=True)
class Batch:
    """A batch of train pairs, each with a sampled negative item."""

    users: Tensor  # int64 [B]
    positives: Tensor  # int64 [B]
    negatives: Tensor  # int64 [B]

    def rows(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pick users, positives and negatives from tables [U, D] and [I, D]: three [B, D]."""
        return (
            pick_rows(user, self.users),
            pick_rows(item, self.positives),
            pick_rows(item, self.negatives),
        )


class Recommender(nn.Module, ABC):
    """Base class of recommenders: vectors whose dot products rank items, and a loss to train them.

    A subclass defines `forward` and `loss`, and overrides `Params`, the class of its settings, and
    `needs`. All models share training, evaluation and checkpoints.

    Example::

        class MatrixFactorisation(Recommender):
            def __init__(self, inputs: Inputs, params: Train) -> None:
                super().__init__(inputs, params)
                self.user = xavier_uniform(inputs.split.n_users, params.dim)
                self.item = xavier_uniform(inputs.split.n_items, params.dim)

            def forward(self) -> tuple[Tensor, Tensor]:
                return self.user, self.item

            def loss(self, batch: Batch) -> dict[str, Tensor]:
                return {"bpr": bpr(*batch.rows(*self()))}
    """

    Params: ClassVar[type[Train]] = Train  # type of `params`; unknown keys are rejected
    # optional inputs that the model requires: features, edges
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, inputs: Inputs, params: Train) -> None:
        """Build the parameters and graphs of the model.

        Args:
            inputs: the split and, if the model needs them, features and edges.
            params: settings, an instance of `Params`.
        """
        super().__init__()

    def groups(self) -> list[dict[str, Any]]:
        """Return Adam's parameter groups: `params` and `rate`, a factor on the learning rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "rate": 1.0}]

    def start_epoch(self) -> None:
        """Rebuild what is fixed within an epoch, such as a sampled graph.

        Draws come from torch's global generator.
        """

    @abstractmethod
    def forward(self) -> tuple[Vectors, Vectors]:
        """Return user vectors, float [U, D'], and item vectors, float [I, D'], for any width D'.

        The score of a user and an item is their dot product. Both can be sparse, with D' = I. A
        model without item vectors returns the sparse histories, [U, I], and a `Filter`.
        """

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, name -> scalar tensor; their sum is minimised."""


class GraphRecommender(Recommender):
    """Base class of recommenders that propagate embeddings over a graph.

    The propagation is independent of the batch: as `loss` is split into `tables` and `terms`,
    several batches can share one, see `Accumulating`.
    """

    @abstractmethod
    def tables(self) -> tuple[Tensor, ...]:
        """Return the propagated tables and parameters that `terms` reads, [U, D] or [I, D]."""

    @abstractmethod
    def terms(self, batch: Batch, *tables: Tensor) -> dict[str, Tensor]:
        """Return the terms of `loss` for a batch, computed from the result of `tables`."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return self.terms(batch, *self.tables())


class Untrained(Recommender):
    """A recommender without trainable parameters, computed in __init__."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {}


def xavier_uniform(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, width)))


def pick_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return table[rows], [B, D]; for a leaf that is not a parameter, the gradient is sparse."""
    walked = (
        not (torch.compiler.is_compiling() or isinstance(table, nn.Parameter)) and table.is_leaf
    )
    return nnf.embedding(rows, table, sparse=walked)


def bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """BPR (Rendle et al. 2009): -mean log sigmoid(h_u . h_i+ - h_u . h_i-) over rows [B, D]."""
    return -nnf.logsigmoid((user * (positive - negative)).sum(1)).mean()


def l2(*rows: Tensor, batch_size: int) -> Tensor:
    """1/2 sum |row|^2 / batch_size over tables of rows [B, D]."""
    # the configured batch size, so that rows of a short last batch are not penalised more
    return sum((table.square().sum() for table in rows), start=rows[0].new_zeros(())) / (
        2 * batch_size
    )


def xavier_normal(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, width)))


def normal_pair(n_users: int, n_items: int, width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return tables [U, width] and [I, width], Xavier normal as one table of U + I rows."""
    user, item = xavier_normal(n_users + n_items, width).detach().split([n_users, n_items])
    return nn.Parameter(user.clone()), nn.Parameter(item.clone())


def pair_squares(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean square of user rows plus that of item rows; [B, D] each."""
    return user.square().mean() + (positive.square().mean() + negative.square().mean()) / 2


def sum_norms(*tables: Tensor, divisor: int) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(table) for table in tables]).sum() / divisor


def guarded_bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-mean log(1e-10 + sigmoid(h_u . h_i+ - h_u . h_i-)) over rows [B, D]; at most 23 per pair."""
    margin = (user * (positive - negative)).sum(1)
    return -(1e-10 + torch.sigmoid(margin)).log().mean()


def learn_features(
    modalities: Iterable[Tensor], learn: bool = True
) -> list[Tensor] | nn.ParameterList:
    return nn.ParameterList([x.clone() for x in modalities]) if learn else list(modalities)


def propagate_steps(graph: Sparse, x: Tensor, steps: int) -> Tensor:
    """Multiply x, [N, D], by a graph, [N, N], `steps` times."""
    for _ in range(steps):
        x = graph.dot(x)
    return x
