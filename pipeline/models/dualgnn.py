"""DualGNN (Wang et al., TMM 2023): modality weights of users, propagated over a user graph.

K neighbours per user.
"""

import math

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.dataset import cooccurrence
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import Batch, Inputs, Recommender, bpr, pick_rows, xavier_normal
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import DualGNNParams
from alignrec.pipeline.runtime.seeds import seed_for

# Unlike the paper, the reference implementation has two-layer projections, rows of length 1 in
# layer 0, and modality weights that are softmax only at the start; the users' image view is
# overwritten by the sum of all views; users with fewer than K neighbours get repeats, drawn per
# epoch; BPR uses log2, and l2 penalises mean squares of the tables. It ranks by the repeats of an
# epoch, whereas here those used for ranking are drawn once.
USER_ITEM_LAYERS = 2  # graph convolutions over the user-item graph
# as published: two columns of weights even for a single modality, which the l2 term includes
MIN_WEIGHT_COLUMNS = 2


class DualGNN(Recommender):
    """score(u, i) = u* . i*.

    i* is the sum over modalities, u* the weighted sum plus its user-graph neighbours.
    """

    Params = DualGNNParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: DualGNNParams) -> None:
        super().__init__(inputs, params)
        self.params = params
        self.device = inputs.device
        self.graph = inputs.user_item
        self.modalities = inputs.modalities
        n_users = inputs.split.n_users
        n_items = inputs.split.n_items
        dim = params.dim

        self.common = most_similar_users(inputs.split, params.neighbours)  # [U, U]
        generator = torch.Generator().manual_seed(seed_for("dualgnn", "user graph"))
        self.ranking_neighbours = self._draw_neighbours(generator)
        self.epoch_neighbours = self.ranking_neighbours

        self.project = nn.ModuleList(projection(f.shape[1], dim) for f in self.modalities)
        tastes = [xavier_normal(n_users, dim) for _ in self.modalities]
        self.taste = nn.ParameterList(tastes)  # M x [U, D]
        columns = max(len(self.modalities), MIN_WEIGHT_COLUMNS)
        self.attention = modality_weights(n_users, columns)  # [U, M]
        self.item_attention = modality_weights(n_items, columns)  # [I, M]

    def start_epoch(self) -> None:
        self.epoch_neighbours = self._draw_neighbours()

    def _draw_neighbours(self, generator: torch.Generator | None = None) -> Sparse:
        """Return each user's K neighbours, [U, U], weighted by softmax of common items."""
        common = self.common
        k = self.params.neighbours
        neighbours_per_user = np.diff(common.indptr)
        users = np.flatnonzero(neighbours_per_user)
        available = neighbours_per_user[users, None]  # [U', 1], U' users with neighbours

        # rows are filled up to K entries with uniform repeats
        slots = np.arange(k)
        uniform = torch.rand(len(users), k, generator=generator, dtype=torch.float64).numpy()
        repeats = (uniform * available).astype(np.int64)
        places = np.where(slots < available, slots, repeats)  # [U', K]
        entries = (common.indptr[users, None] + places).ravel()

        row_lengths = np.zeros(common.shape[0] + 1, np.int64)
        row_lengths[users + 1] = k
        parts = common.data[entries], common.indices[entries], row_lengths.cumsum()
        return Sparse(softmax_rows(sp.csr_array(parts, shape=common.shape)), self.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        users = []
        items = []
        for features, project, taste in zip(self.modalities, self.project, self.taste, strict=True):
            user = nnf.normalize(taste)
            item = nnf.normalize(project(features))
            # the mean of the layers, which the paper sums
            user, item = propagate(self.graph, user, item, USER_ITEM_LAYERS)
            users.append(user * (USER_ITEM_LAYERS + 1))
            items.append(item * (USER_ITEM_LAYERS + 1))

        user = self._fuse_users(users)
        neighbours = self.epoch_neighbours if self.training else self.ranking_neighbours
        return user + neighbours.dot(user), torch.stack(items).sum(0)

    def _fuse_users(self, views: list[Tensor]) -> Tensor:
        """Return u_mul = sum_m alpha_um u_m, [U, D], of M views: the paper's attentive sum."""
        if len(views) == 1:
            return views[0]

        views = [*views[:-1], torch.stack(views).sum(0)]
        weighted = [self.attention[:, m : m + 1] * view for m, view in enumerate(views)]
        return torch.stack(weighted).sum(0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        rows = batch.rows(*self())
        squares = [pick_rows(table, batch.users).square().mean() for table in self.taste]
        taste = torch.stack(squares).sum()
        weights = self.attention.square().mean() + self.item_attention.square().mean()
        return {
            "bpr": bpr(*rows) / math.log(2),
            "l2_taste": self.params.l2 * taste,
            "l2_weights": self.params.l2 * weights,
        }


def most_similar_users(split: Split, k: int) -> sp.csr_array:
    """Return counts of common items with each user's top K users, [U, U]."""
    # in blocks, to avoid a dense U x U matrix
    counts = cooccurrence.count_cooccurrences(adjacency.interaction_matrix(split))
    blocks = [cooccurrence.top_k(block, k) for _, block in counts]
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def projection(width: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * dim), nn.LeakyReLU(), nn.Linear(4 * dim, dim))


def modality_weights(rows: int, columns: int) -> nn.Parameter:
    """Return unconstrained weights, [rows, columns], initialised by a softmax over columns."""
    drawn = nn.init.xavier_normal_(torch.empty(rows, columns, 1))
    return nn.Parameter(drawn[:, :, 0].softmax(1))


def softmax_rows(matrix: sp.csr_array) -> sp.csr_array:
    """Return the softmax over each row's entries, float32; repeated entries are kept."""
    n_rows = matrix.shape[0]
    row = cooccurrence.row_numbers(matrix)
    largest = np.zeros(n_rows, np.float32)
    np.maximum.at(largest, row, matrix.data)

    weights = np.exp(matrix.data - largest[row])
    weights /= np.bincount(row, weights, n_rows)[row]
    parts = weights.astype(np.float32), matrix.indices, matrix.indptr
    return sp.csr_array(parts, shape=matrix.shape)
