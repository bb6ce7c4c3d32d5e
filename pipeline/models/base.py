"""The interface of a recommender: user and item vectors, and a loss.

Letters: U users, I items, F width of features, F_m width of modality m, M modalities, B batch, D width of embeddings.
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

from alignrec.pipeline.graph import neighbours
from alignrec.pipeline.interactions.split import Split
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.ops.scores import Vectors
from alignrec.pipeline.ops.sparse import Sparse


@dataclass(frozen=True)
class Inputs:
    """A model's inputs; the graphs are computed when a model first reads them."""

    split: Split
    features: Tensor | None  # float32 [I, F]
    edges: pa.Table | None  # schema EDGES
    device: torch.device
    parts: tuple[int, ...] = ()
    """widths of the modalities that stand side by side in a row of features; none: all columns are one modality"""

    @cached_property
    def modalities(self) -> list[Tensor]:
        """Each modality's columns of features, [I, F_m]."""
        assert self.features is not None
        return list(self.features.split(list(self.parts) or self.features.shape[1], dim=1))

    @cached_property
    def modal_edges(self) -> list[pa.Table]:
        """Each modality's neighbours, schema EDGES, as many an item as `edges` has; of a single one `edges` itself."""
        assert self.edges is not None
        if len(self.modalities) == 1:
            return [self.edges]
        k = int(self.edges["rank"].to_numpy().max()) + 1
        return [neighbours.find_neighbours(modality.cpu().numpy(), k) for modality in self.modalities]

    @cached_property
    def user_item(self) -> Sparse:
        """R_hat [U, I]."""
        return Sparse(adjacency.user_item_graph(self.split), self.device)


@dataclass(frozen=True)
class Batch:
    """B train pairs, each with a negative."""

    users: Tensor  # int64 [B]
    positives: Tensor  # int64 [B]
    negatives: Tensor  # int64 [B]

    def rows(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows of tables [U, D] and [I, D] of users, positives and negatives, [B, D] each."""
        return pick_rows(user, self.users), pick_rows(item, self.positives), pick_rows(item, self.negatives)


class Recommender(nn.Module, ABC):
    """The interface: `forward` gives user and item vectors whose dot product is the score; `loss` what to minimise.

    The published code of MMGCN, GRCN, DualGNN and SLMRec ranks by vectors from before the last step of Adam; here they
    are always the current ones.
    """

    Params: ClassVar[type[Train]] = Train
    """class of the model's settings, `params` of its __init__; unknown keys are refused"""
    needs: ClassVar[frozenset[str]] = frozenset()  # the optional inputs that the model requires: features, edges

    def __init__(self, inputs: Inputs, params: Train) -> None:
        super().__init__()

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.parameters() if p.requires_grad], "rate": 1.0}]

    def start_epoch(self) -> None:
        """Redraw or rebuild what stays the same for one epoch of training; drawn from torch's global generator."""

    @abstractmethod
    def forward(self) -> tuple[Vectors, Vectors]:
        """Return float [U, D'] and [I, D'], D' the model's own width; sparse ones where D' is the catalogue.

        A model without item vectors returns the histories R [U, I], sparse, and a filter.
        """

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms by name; their sum is minimised."""


class GraphRecommender(Recommender):
    """A recommender whose loss reads a batch's rows of tables that one walk over the graph gives, for any batch."""

    @abstractmethod
    def tables(self) -> tuple[Tensor, ...]:
        """Return the tables, [U, D] and [I, D]: propagated ones, and parameters that the loss reads itself."""

    @abstractmethod
    def terms(self, batch: Batch, *tables: Tensor) -> dict[str, Tensor]:
        """Return what `loss` does, of these tables."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return self.terms(batch, *self.tables())


class Untrained(Recommender):
    """A recommender without parameters: whatever it computes, it computes as it is made."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {}


def xavier_uniform(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, width)))


def pick_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return table[rows], [B, D]; the gradient of a leaf that is no parameter is sparse, see `GraphRecommender`."""
    walked = not (torch.compiler.is_compiling() or isinstance(table, nn.Parameter)) and table.is_leaf
    return nnf.embedding(rows, table, sparse=walked)


def bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-mean log sigmoid(h_u . h_i+ - h_u . h_i-) over [B, D] rows (Rendle et al. 2009)."""
    return -nnf.logsigmoid((user * (positive - negative)).sum(1)).mean()


def l2(*rows: Tensor, batch_size: int) -> Tensor:
    """1/2 sum |row|^2 / batch_size, the constant one: a short last batch weighs no more than others."""
    return sum((table.square().sum() for table in rows), start=rows[0].new_zeros(())) / (2 * batch_size)


def xavier_normal(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, width)))


def normal_pair(n_users: int, n_items: int, width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return tables [U, width] and [I, width] drawn as one: its number of rows decides the spread."""
    user, item = xavier_normal(n_users + n_items, width).detach().split([n_users, n_items])
    return nn.Parameter(user.clone()), nn.Parameter(item.clone())


def pair_squares(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean square of [B, D] rows of users, plus that of both items of each user."""
    return user.square().mean() + (positive.square().mean() + negative.square().mean()) / 2


def sum_norms(*tables: Tensor, divisor: int) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(table) for table in tables]).sum() / divisor


def guarded_bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-mean log(1e-10 + sigmoid(h_u . h_i+ - h_u . h_i-)) over [B, D] rows: a pair costs at most 23."""
    return -(1e-10 + torch.sigmoid((user * (positive - negative)).sum(1))).log().mean()


def learn_features(modalities: Iterable[Tensor], learn: bool = True) -> list[Tensor] | nn.ParameterList:
    """Return features M x [I, F_m], as parameters that start so where they learn, as in the references."""
    return nn.ParameterList([x.clone() for x in modalities]) if learn else list(modalities)


def propagate_steps(graph: Sparse, x: Tensor, steps: int) -> Tensor:
    """Return x [N, D] after some products with a graph [N, N]."""
    for _ in range(steps):
        x = graph.dot(x)
    return x
