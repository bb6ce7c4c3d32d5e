"""DualGNN (Wang et al., TMM 2023): modality weights of users, propagated over a user graph. K neighbours per user."""

import math

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.dataset import cooccurrence
from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import Batch, Inputs, Recommender, bpr, pick_rows, xavier_normal
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import Multimodal
from alignrec.pipeline.runtime.config import Positive
from alignrec.pipeline.runtime.seeds import seed_for

# Unlike the paper, the reference implementation has two-layer projections, rows of length 1 in layer 0, and modality
# weights that are softmax only at the start; the users' image view is overwritten by the sum of all views; users with
# fewer than K neighbours get repeats, drawn per epoch; BPR uses log2, and l2 penalises mean squares of the tables. It
# ranks by the repeats of an epoch, whereas here those used for ranking are drawn once.
LAYERS = 2  # graph convolutions over the user-item graph


class DualGNNParams(Multimodal):
    neighbours: Positive = (
        40  # neighbours that a user aggregates, by common items (K); 40 in the published code
    )


class DualGNN(Recommender):
    """score(u, i) = u* . i*, i* the sum over modalities, u* the weighted sum plus its user-graph neighbours."""

    Params = DualGNNParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: DualGNNParams) -> None:
        super().__init__(inputs, params)
        self.params, self.device, self.graph = params, inputs.device, inputs.user_item
        self.modalities = inputs.modalities
        n_users, dim, m = inputs.split.n_users, params.dim, len(self.modalities)
        # counts of common items with each user's top K users, [U, U]; in blocks, to avoid a dense U x U matrix
        counts = cooccurrence.count_cooccurrences(adjacency.interaction_matrix(inputs.split))
        blocks = [cooccurrence.top_k(block, params.neighbours) for _, block in counts]
        self.common = sp.csr_array(sp.vstack(blocks, format="csr"))
        self.fixed = self.drawn = self._draw_neighbours(
            torch.Generator().manual_seed(seed_for("dualgnn", "user graph"))
        )
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(f.shape[1], 4 * dim), nn.LeakyReLU(), nn.Linear(4 * dim, dim))
            for f in self.modalities
        )
        self.taste = nn.ParameterList(xavier_normal(n_users, dim) for _ in range(m))  # M x [U, D]
        columns = max(
            m, 2
        )  # as published: two even for a single modality, which the l2 term includes
        self.attention = modality_weights(n_users, columns)  # [U, M]
        self.item_attention = modality_weights(inputs.split.n_items, columns)  # [I, M]

    def start_epoch(self) -> None:
        self.drawn = self._draw_neighbours()

    def _draw_neighbours(self, draws: torch.Generator | None = None) -> Sparse:
        """Return each user's K neighbours, [U, U], weighted by softmax of common items; repeats are sampled."""
        # non-empty rows are padded to K entries with uniform repeats
        common, k = self.common, self.params.neighbours
        own = np.diff(common.indptr)
        row = np.flatnonzero(own)
        own, slot = own[row, None], np.arange(k)  # [U', 1], [K]
        again = (
            torch.rand(len(row), k, generator=draws, dtype=torch.float64).numpy() * own
        )  # [U', K]
        at = (common.indptr[row, None] + np.where(slot < own, slot, again.astype(np.int64))).ravel()
        starts = np.zeros(common.shape[0] + 1, np.int64)
        starts[row + 1] = k
        repeated = sp.csr_array(
            (common.data[at], common.indices[at], starts.cumsum()), shape=common.shape
        )
        return Sparse(softmax_rows(repeated), self.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        users, items = [], []
        for features, project, taste in zip(self.modalities, self.project, self.taste, strict=True):
            user, item = nnf.normalize(taste), nnf.normalize(project(features))
            user, item = propagate(
                self.graph, user, item, LAYERS
            )  # returns the mean of the layers,
            users.append(user * (LAYERS + 1))  # the paper sums them
            items.append(item * (LAYERS + 1))
        if len(users) > 1:  # u_mul = sum_m alpha_um u_m (the paper's attentive sum)
            views = [*users[:-1], torch.stack(users).sum(0)]
            users = [
                torch.stack(
                    [self.attention[:, m : m + 1] * view for m, view in enumerate(views)]
                ).sum(0)
            ]
        user = users[0]  # [U, D]
        return user + (self.drawn if self.training else self.fixed).dot(user), torch.stack(
            items
        ).sum(0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        l2, rows = self.params.l2, batch.rows(*self())
        taste = torch.stack(
            [pick_rows(table, batch.users).square().mean() for table in self.taste]
        ).sum()
        weights = self.attention.square().mean() + self.item_attention.square().mean()
        return {"bpr": bpr(*rows) / math.log(2), "l2_taste": l2 * taste, "l2_weights": l2 * weights}


def modality_weights(rows: int, columns: int) -> nn.Parameter:
    """Return unconstrained modality weights, [rows, columns], initialised by a softmax over columns."""
    drawn = nn.init.xavier_normal_(torch.empty(rows, columns, 1))
    return nn.Parameter(drawn[:, :, 0].softmax(1))


def softmax_rows(matrix: sp.csr_array) -> sp.csr_array:
    """Return the softmax over each row's entries, float32; repeated entries are kept."""
    row = cooccurrence.row_numbers(matrix)
    largest = np.zeros(matrix.shape[0], np.float32)
    np.maximum.at(largest, row, matrix.data)
    weights = np.exp(matrix.data - largest[row])
    weights /= np.bincount(row, weights, matrix.shape[0])[row]
    return sp.csr_array(
        (weights.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape
    )
