"""DualGNN (Wang et al., TMM 2023): a user's weights of the modalities pass over a graph of users with common items.

The reference has two maps a modality, rows of length 1 in layer 0, and weights of modalities that are free after a
softmax start; the users' image view is overwritten by the sum of all views; free places among K neighbours are filled
with repeats, drawn each epoch; BPR's logarithm has base 2, and l2 is of mean squares of the tables. The paper has one
map, weights that stay a softmax, none of the rest; l2 halves squares of final rows.

Letters: U users, I items, F_m width of modality m, M modalities, K neighbours, B batch, D width.
"""

import math
from collections.abc import Iterable

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Positive, Rate
from pipeline.interactions import cooccurrence
from pipeline.models import adjacency
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, normal, pick
from pipeline.models.lightgcn import propagate
from pipeline.models.params import Regularised, Varied
from pipeline.ops.sparse import Sparse
from pipeline.seeds import seed_for


class DualGNNParams(Varied, Regularised):
    """What DualGNN reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Count = 2
    """LightGCN layers over the user-item graph; the published code always takes 2"""
    neighbours: Positive = 40
    """users with the most items in common, whose vectors a user aggregates; the published code always takes 40"""


class DualGNN(Recommender):
    """score(u, i) = u* . i*, i* the sum over modalities, u* a weighted sum propagated over the user graph.

    The published code ranks by vectors from before the last step of Adam and by that epoch's repeats; here vectors are
    the current ones, and the repeats are drawn once.
    """

    Params = DualGNNParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: DualGNNParams) -> None:
        super().__init__(inputs, params)
        self.l2, self.batch_size, self.layers = params.l2, params.batch_size, params.layers
        self.is_paper = params.variant == "paper"
        self.graph = inputs.user_item
        n_users, n_items, dim = inputs.split.n_users, inputs.split.n_items, params.dim
        self.users = UserGraph(inputs, params.neighbours, repeats=not self.is_paper)
        self.modalities = inputs.modalities
        m = len(self.modalities)
        if not self.is_paper:
            self.project = nn.ModuleList(encoder(f.shape[1], dim) for f in self.modalities)
            self.taste = nn.ParameterList(normal(n_users, dim) for _ in range(m))
            columns = max(m, 2)  # as published: two, which the l2 term sees, also of a single modality
            self.attention, self.item_attention = (drawn_weights(n, columns) for n in (n_users, n_items))
        else:
            self.project = nn.ModuleList(nn.Linear(f.shape[1], dim) for f in self.modalities)
            self.taste = nn.ParameterList(embedding(n_users, dim) for _ in range(m))
            self.attention = nn.Parameter(torch.zeros(n_users, m))  # [U, M]

    def start_epoch(self) -> None:
        """Draw which neighbours are repeated in this epoch."""
        self.users.redraw()

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return u* [U, D] and i* [I, D]."""
        users, items = [], []
        for features, project, taste in zip(self.modalities, self.project, self.taste, strict=True):
            user, item = taste, project(features)
            if not self.is_paper:
                user, item = nnf.normalize(user), nnf.normalize(item)
            user, item = propagate(self.graph, user, item, self.layers)  # the mean of the layers ...
            users.append(user * (self.layers + 1))  # ... the paper sums them
            items.append(item * (self.layers + 1))
        user = self._weighted(users)  # [U, D]
        return user + self.users.heard(user, self.training), torch.stack(items).sum(0)

    def _weighted(self, users: list[Tensor]) -> Tensor:
        if self.is_paper:
            return weighted_sum(users, self.attention.softmax(1))
        if len(users) == 1:
            return users[0]
        return weighted_sum([*users[:-1], torch.stack(users).sum(0)], self.attention)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr and l2: of the tables as published (reference), or of the rows that the batch touches (paper)."""
        users, items = self()
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        if self.is_paper:
            return {"bpr": bpr(*rows), "l2": self.l2 * l2(*rows, batch_size=self.batch_size)}
        weights = self.attention.square().mean() + self.item_attention.square().mean()
        return {
            "bpr": base_2_bpr(*rows),
            "l2_taste": self.l2 * taste_squares(self.taste, batch),
            "l2_weights": self.l2 * weights,
        }


class UserGraph:
    """Each user's K nearest by common items, weighted by a softmax of how many; free places are filled with repeats.

    Repeats are drawn again for each epoch, and once for ranking.
    """

    def __init__(self, inputs: Inputs, k: int, repeats: bool = True) -> None:
        """Count the common items; with `repeats` a user with fewer than K neighbours has some again."""
        self.k, self.repeats, self.device = k, repeats, inputs.device
        self.common = common_items(adjacency.seen(inputs.split), k)  # [U, U]
        self.fixed = self.sampled = self._draw(torch.Generator().manual_seed(seed_for("dualgnn", "user graph")))

    def _draw(self, draws: torch.Generator | None = None) -> Sparse:
        """Return the graph [U, U]; its repeats from `draws`, or from torch's global generator."""
        graph = repeated(self.common, self.k, draws) if self.repeats else self.common
        return Sparse(softmax_rows(graph), self.device)

    def redraw(self) -> None:
        """Draw which neighbours are repeated in this epoch."""
        if self.repeats:
            self.sampled = self._draw()

    def heard(self, user: Tensor, training: bool) -> Tensor:
        """Return what each user's neighbours send, [U, D] of [U, D]."""
        return (self.sampled if training else self.fixed).dot(user)


def encoder(width: int, dim: int) -> nn.Sequential:
    """Return the two maps of a modality, F_m -> 4 D -> D."""
    return nn.Sequential(nn.Linear(width, 4 * dim), nn.LeakyReLU(), nn.Linear(4 * dim, dim))


def drawn_weights(rows: int, columns: int) -> nn.Parameter:
    """Return weights of modalities, [rows, columns]: rows begin as a softmax, later they are free."""
    drawn = nn.init.xavier_normal_(torch.empty(rows, columns, 1))
    return nn.Parameter(drawn[:, :, 0].softmax(1))


def weighted_sum(users: list[Tensor], weights: Tensor) -> Tensor:
    """u_mul = sum_m alpha_um u_m, M x [U, D] by weights [U, M] (the paper's attentively sum construction)."""
    return torch.stack([weights[:, m : m + 1] * user for m, user in enumerate(users)]).sum(0)


def common_items(seen: sp.csr_array, k: int) -> sp.csr_array:
    """Return the numbers of common items with each user's K nearest users, float32 [U, U], of R, float32 [U, I].

    Equal numbers are kept by ascending user. Blocked, so that no U x U matrix is held.
    """
    blocks = [cooccurrence.top_k(counts, k) for _, counts in cooccurrence.cooccurrences(seen)]
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def repeated(common: sp.csr_array, k: int, draws: torch.Generator | None = None) -> sp.csr_array:
    """Return K entries in each row of [U, U] that has any: its own, then some of them again, each as likely."""
    own = np.diff(common.indptr)
    row = np.flatnonzero(own)
    own, slot = own[row, None], np.arange(k)  # [U', 1], [K]
    again = (torch.rand(len(row), k, generator=draws, dtype=torch.float64).numpy() * own).astype(np.int64)  # [U', K]
    at = (common.indptr[row, None] + np.where(slot < own, slot, again)).ravel()
    starts = np.zeros(common.shape[0] + 1, np.int64)
    starts[row + 1] = k
    return sp.csr_array((common.data[at], common.indices[at], starts.cumsum()), shape=common.shape)


def softmax_rows(matrix: sp.csr_array) -> sp.csr_array:
    """Return the softmax of each row's entries, float32; repeated entries stay apart."""
    row = cooccurrence.rows(matrix)
    largest = np.zeros(matrix.shape[0], np.float32)
    np.maximum.at(largest, row, matrix.data)
    weights = np.exp(matrix.data - largest[row])
    weights /= np.bincount(row, weights, matrix.shape[0])[row]
    return sp.csr_array((weights.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def base_2_bpr(user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-mean log_2 sigmoid(h_u . h_i+ - h_u . h_i-), as DualGNN's kin have it."""
    return bpr(user, positive, negative) / math.log(2)


def taste_squares(tastes: Iterable[Tensor], batch: Batch) -> Tensor:
    return torch.stack([pick(table, batch.users).square().mean() for table in tastes]).sum()
