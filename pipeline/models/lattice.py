"""LATTICE (Zhang et al., MM 2021): learned item graph.

N = U + I, E = I K edges; other letters: see base.py.
"""

from typing import NamedTuple

import scipy.sparse as sp
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.sparse import Sparse, SparsityPattern
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import (
    Batch,
    Inputs,
    Recommender,
    bpr,
    l2,
    learn_features,
    xavier_uniform,
)
from alignrec.pipeline.models.params import LATTICEParams

# Unlike the paper, the reference implementation updates the item graph only in the first batch of
# an epoch, trains the features, mixes modalities before normalising the learned graph, keeps the
# sign of cosines, averages over the user-item graph with self-loops, and penalises final rows (l2).
# Here neighbours are searched once per epoch, and the graph is stored as edges.
FIXED_SHARE = 0.9  # share of the fixed graph, as opposed to the learned one (lambda)


class EdgeWeights(NamedTuple):
    """Weights of the learned item graph."""

    shares: Tensor  # [M], of each modality
    cosines: list[Tensor]  # M x [E], of the edges by projected features


class LATTICE(Recommender):
    """score(u, i) = x_u . (x_i + h_i / |h_i|).

    x is from LightGCN, h item IDs propagated over the item graph.
    """

    Params = LATTICEParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: LATTICEParams) -> None:
        super().__init__(inputs, params)
        self.params = params
        self.device = inputs.device
        n_items = inputs.split.n_items
        self.user = xavier_uniform(inputs.split.n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(n_items, params.dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in inputs.modalities)
        self.importance = nn.Parameter(torch.zeros(len(inputs.modalities)))  # alpha is its softmax
        self.modalities = learn_features(inputs.modalities)

        graphs = [adjacency.item_graph(edges, n_items) for edges in inputs.modal_edges]
        self.fixed = [Sparse(graph, inputs.device) for graph in graphs]  # M x [I, I]
        last_ranks = [int(edges["rank"].to_numpy().max()) for edges in inputs.modal_edges]
        self.k = max(last_ranks) + 1
        self.walk = Sparse(mean_with_self(inputs.split), inputs.device)  # [N, N]
        self.edges: list[SparsityPattern] = []
        self.epoch_weights: EdgeWeights | None = None

    def start_epoch(self) -> None:
        self.edges = self._find_edges()
        self.epoch_weights = None

    @torch.no_grad()
    def _find_edges(self) -> list[SparsityPattern]:
        shape = len(self.item), len(self.item)
        patterns = []
        for projected in self.project_features():
            edges = neighbours.find_neighbours(projected.float().cpu().numpy(), self.k)
            item = edges["item_id"].to_numpy()
            neighbour = edges["neighbour_id"].to_numpy()
            patterns.append(SparsityPattern(item, neighbour, shape, self.device))
        return patterns

    def project_features(self) -> list[Tensor]:
        """Return e~_m = W_m e_m + b_m, M x [I, D]."""
        modalities = zip(self.project, self.modalities, strict=True)
        return [linear(features) for linear, features in modalities]

    def forward(self) -> tuple[Tensor, Tensor]:
        if self.training and not self.edges:
            self.start_epoch()
        # features have changed since the start of the epoch: outside training, search again
        edges = self.edges if self.training else self._find_edges()
        shares, cosines = self._edge_weights(edges)

        h: Tensor = self.item
        for _ in range(self.params.item_layers):  # (lambda sum_m alpha_m S_m + (1 - lambda) A) h
            by_modality = [share * s.dot(h) for share, s in zip(shares, self.fixed, strict=True)]
            fixed = torch.stack(by_modality).sum(0)
            learned = balanced_product(edges, cosines, shares, h)
            h = FIXED_SHARE * fixed + (1 - FIXED_SHARE) * learned

        start = torch.cat([self.user, self.item])  # [N, D]
        x = start
        for _ in range(self.params.layers):  # Horner's rule: e + A (e + A (e + ..))
            x = self.walk.dot(x) + start
        mean = x / (self.params.layers + 1)
        user, item = mean.split([len(self.user), len(self.item)])
        return user, item + nnf.normalize(h)

    @torch.compiler.disable  # a CUDA graph would overwrite the weights kept for later batches
    def _edge_weights(self, edges: list[SparsityPattern]) -> EdgeWeights:
        if self.training and self.epoch_weights:
            return self.epoch_weights

        directions = [nnf.normalize(x) for x in self.project_features()]
        cosines = [pattern.dots(x, x) for pattern, x in zip(edges, directions, strict=True)]
        shares = self.importance.softmax(0)
        if self.training:
            self.epoch_weights = EdgeWeights(shares.detach(), [w.detach() for w in cosines])
        return EdgeWeights(shares, cosines)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        rows = batch.rows(*self())
        penalty = l2(*rows, batch_size=self.params.batch_size)
        return {"bpr": bpr(*rows), "l2": self.params.l2 * penalty}


def mean_with_self(split: Split) -> sp.csr_array:
    """Return D^-1 (A + 1), [N, N]: the mean over a node and its neighbours in train."""
    seen = adjacency.interaction_matrix(split)
    symmetric = sp.block_array([[None, seen], [seen.T, None]], format="csr")
    loops = sp.eye_array(symmetric.shape[0], dtype="float32", format="csr")
    return adjacency.normalise_rows(sp.csr_array(symmetric + loops))


def balanced_product(
    edges: list[SparsityPattern], weights: list[Tensor], shares: Tensor, x: Tensor
) -> Tensor:
    """Return D^-1/2 S D^-1/2 x, [I, D].

    S = sum_m shares_m S_m, S_m of weights [E], and D its row sums.
    """

    def product(x: Tensor) -> Tensor:
        modalities = zip(shares, edges, weights, strict=True)
        terms = [share * pattern.product(w, x) for share, pattern, w in modalities]
        return torch.stack(terms).sum(0)

    degree = product(x.new_ones(len(x), 1))  # [I, 1]
    # cosines can be negative: rows with a sum <= 0 are treated as empty
    empty = degree <= 0
    root = degree.masked_fill(empty, 1).rsqrt().masked_fill(empty, 0)
    return root * product(root * x)
