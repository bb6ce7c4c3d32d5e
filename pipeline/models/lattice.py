"""LATTICE (Zhang et al., MM 2021): learned item graph. N = U + I, E = I K edges; other letters: see base.py."""

import scipy.sparse as sp
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

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
from alignrec.pipeline.models.params import ItemGraph, Multimodal

# Unlike the paper, the reference implementation updates the item graph only in the first batch of an epoch, trains the
# features, mixes modalities before normalising the learned graph, keeps the sign of cosines, averages over the
# user-item graph with self-loops, and penalises final rows (l2). Here neighbours are searched once per epoch, and the
# graph is stored as edges.
SKIP = 0.9  # share of the fixed graph, as opposed to the learned one (lambda)


class LATTICEParams(Multimodal, ItemGraph): ...


# share of each modality, [M]; cosines of the edges by projected features, M x [E]
Weights = tuple[Tensor, list[Tensor]]


class LATTICE(Recommender):
    """score(u, i) = x_u . (x_i + h_i / |h_i|), x from LightGCN, h item IDs propagated over the item graph."""

    Params = LATTICEParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: LATTICEParams) -> None:
        super().__init__(inputs, params)
        self.params, self.device = params, inputs.device
        n_items = inputs.split.n_items
        self.user = xavier_uniform(inputs.split.n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(n_items, params.dim)  # [I, D]
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in inputs.modalities)
        self.importance = nn.Parameter(torch.zeros(len(inputs.modalities)))  # alpha is its softmax
        self.k = max(int(table["rank"].to_numpy().max()) for table in inputs.modal_edges) + 1
        # D^-1 (A + 1): the mean over a node and its neighbours in train
        seen = adjacency.interaction_matrix(inputs.split)
        both = sp.block_array([[None, seen], [seen.T, None]], format="csr")
        loops = sp.csr_array(both + sp.eye_array(both.shape[0], dtype="float32", format="csr"))
        self.walk = Sparse(adjacency.normalise_rows(loops), inputs.device)  # [N, N]
        self.modalities = learn_features(inputs.modalities)
        # M x [I, I]
        self.fixed = [
            Sparse(adjacency.item_graph(table, n_items), inputs.device)
            for table in inputs.modal_edges
        ]
        self.edges: list[SparsityPattern] = []
        self.kept: Weights | None = None

    def start_epoch(self) -> None:
        self.edges, self.kept = self._find_edges(), None

    @torch.no_grad()
    def _find_edges(self) -> list[SparsityPattern]:
        tables = (
            neighbours.find_neighbours(x.float().cpu().numpy(), self.k)
            for x in self.project_features()
        )
        ends = ((table["item_id"].to_numpy(), table["neighbour_id"].to_numpy()) for table in tables)
        return [
            SparsityPattern(*own, (len(self.item), len(self.item)), self.device) for own in ends
        ]

    def project_features(self) -> list[Tensor]:
        """Return e~_m = W_m e_m + b_m, M x [I, D]."""
        return [w(f) for w, f in zip(self.project, self.modalities, strict=True)]

    def forward(self) -> tuple[Tensor, Tensor]:
        if self.training and not self.edges:
            self.start_epoch()
        # features have changed since the start of the epoch: outside training, search again
        edges = self.edges if self.training else self._find_edges()
        alpha, cosines = self._edge_weights(edges)
        h: Tensor = self.item
        for _ in range(self.params.item_layers):  # (lambda sum_m alpha_m S_m + (1 - lambda) A) h
            fixed = torch.stack([a * s.dot(h) for a, s in zip(alpha, self.fixed, strict=True)]).sum(
                0
            )
            h = SKIP * fixed + (1 - SKIP) * balanced_product(edges, cosines, alpha, h)
        x = start = torch.cat([self.user, self.item])  # [N, D]
        for _ in range(self.params.layers):  # Horner's rule: e + A (e + A (e + ..))
            x = self.walk.dot(x) + start
        user, item = (x / (self.params.layers + 1)).split([len(self.user), len(self.item)])
        return user, item + nnf.normalize(h)

    @torch.compiler.disable  # a CUDA graph would overwrite the weights kept for later batches
    def _edge_weights(self, edges: list[SparsityPattern]) -> Weights:
        if self.training and self.kept:
            return self.kept
        directions = [nnf.normalize(x) for x in self.project_features()]
        cosines = [e.dots(x, x) for e, x in zip(edges, directions, strict=True)]
        alpha = self.importance.softmax(0)
        if self.training:
            self.kept = alpha.detach(), [w.detach() for w in cosines]
        return alpha, cosines

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        rows = batch.rows(*self())
        return {
            "bpr": bpr(*rows),
            "l2": self.params.l2 * l2(*rows, batch_size=self.params.batch_size),
        }


def balanced_product(
    edges: list[SparsityPattern], weights: list[Tensor], shares: Tensor, x: Tensor
) -> Tensor:
    """Return D^-1/2 S D^-1/2 x, [I, D]; S = sum_m shares_m S_m, S_m of weights [E], and D its row sums."""

    def product(x: Tensor) -> Tensor:
        terms = [s * e.product(w, x) for s, e, w in zip(shares, edges, weights, strict=True)]
        return torch.stack(terms).sum(0)

    degree = product(x.new_ones(len(x), 1))  # [I, 1]
    # cosines can be negative: rows with a sum <= 0 are treated as empty
    empty = degree <= 0
    root = degree.masked_fill(empty, 1).rsqrt().masked_fill(empty, 0)
    return root * product(root * x)
