"""FREEDOM (Zhou and Shen, MM 2023): item graph of LATTICE frozen, user-item graph thinned."""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from alignrec.pipeline.linalg.sparse import Sparse
from alignrec.pipeline.models import adjacency
from alignrec.pipeline.models.base import (
    Batch,
    Inputs,
    Recommender,
    bpr,
    learn_features,
    pick_rows,
    propagate_steps,
    xavier_uniform,
)
from alignrec.pipeline.models.lightgcn import propagate
from alignrec.pipeline.models.params import FREEDOMParams


class FREEDOM(Recommender):
    """score(u, i) = x_u . (x_i + h_i), x from LightGCN, h item IDs on the item graph."""

    Params = FREEDOMParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: FREEDOMParams) -> None:
        super().__init__(inputs, params)
        self.params = params
        self.device = inputs.device
        self.modalities = learn_features(inputs.modalities)  # trained, unlike in the paper
        self.seen = adjacency.interaction_matrix(inputs.split)  # R [U, I]
        self.whole = inputs.user_item
        self.thinned = self.whole
        item_graph = mix_item_graphs(inputs.modal_edges, inputs.split.n_items, params.first)
        self.item_item = Sparse(item_graph, inputs.device)  # [I, I]

        self.user = xavier_uniform(inputs.split.n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, params.dim)  # [I, D]
        # without bias, which cancels in the difference of two items
        widths = [features.shape[1] for features in self.modalities]
        self.project = nn.ModuleList(nn.Linear(width, params.dim, bias=False) for width in widths)

    def start_epoch(self) -> None:
        # rounded down, as in the reference
        n_pairs = int((1 - self.params.drop) * self.seen.nnz)
        thinned = adjacency.normalise_by_degrees(thin_edges(self.seen, n_pairs))
        self.thinned = Sparse(thinned, self.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        user_item = self.thinned if self.training else self.whole
        user, item = propagate(user_item, self.user, self.item, self.params.layers)
        return user, item + propagate_steps(self.item_item, self.item, self.params.item_layers)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        users, items = self()
        user = pick_rows(users, batch.users)

        modal = []
        for linear, features in zip(self.project, self.modalities, strict=True):
            positive = linear(pick_rows(features, batch.positives))
            negative = linear(pick_rows(features, batch.negatives))
            modal.append(bpr(user, positive, negative))

        positive = pick_rows(items, batch.positives)
        negative = pick_rows(items, batch.negatives)
        return {
            "bpr": bpr(user, positive, negative),
            "modal": self.params.modal * torch.stack(modal).sum(),
        }


def mix_item_graphs(modal_edges: list[pa.Table], n_items: int, first: float) -> sp.csr_array:
    """Return S = sum_m alpha_m S_m, [I, I]; alpha_1 is `first`, the others are equal, sum 1."""
    n_others = len(modal_edges) - 1
    shares = [first] + [(1 - first) / n_others] * n_others if n_others else [1.0]

    graphs = []
    for share, edges in zip(shares, modal_edges, strict=True):
        # S_m gives all neighbours the same weight
        ones = pa.array(np.ones(len(edges), np.float32))
        equal = edges.set_column(edges.schema.get_field_index("cosine"), "cosine", ones)
        graphs.append(share * adjacency.item_graph(equal, n_items))
    return sp.csr_array(sum(graphs[1:], start=graphs[0]))


def thin_edges(seen: sp.csr_array, n: int) -> sp.csr_array:
    """Sample n pairs of R, [U, I], without replacement (degree-sensitive pruning).

    Draws come from torch's global generator.
    """
    # probability proportional to 1 / sqrt(degree of user x degree of item)
    pairs = sp.coo_array(seen)
    user_degrees = seen.sum(axis=1)[pairs.row]
    item_degrees = seen.sum(axis=0)[pairs.col]
    probability = torch.from_numpy(1 / np.sqrt(user_degrees * item_degrees))

    sampled = torch.multinomial(probability, max(1, n)).sort().values.numpy()
    ends = pairs.row[sampled], pairs.col[sampled]
    return sp.csr_array((pairs.data[sampled], ends), shape=seen.shape)
