"""FREEDOM (Zhou and Shen, MM 2023): LATTICE's item graph frozen, the user-item graph pruned in each epoch."""

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
from alignrec.pipeline.models.params import ItemGraph
from alignrec.pipeline.runtime.config import Rate, Share, Weight


class FREEDOMParams(ItemGraph):
    """Parameters of FREEDOM; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    drop: Share = 0.8  # share of user-item edges dropped per epoch
    first: Share = 0.9  # weight of the first modality's graph; the others share the rest
    modal: Weight = 1e-3  # weight of the per-modality ranking losses (lambda)


class FREEDOM(Recommender):
    """score(u, i) = x_u . (x_i + h_i), x from LightGCN, h item IDs propagated over the frozen item graph."""

    Params = FREEDOMParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: FREEDOMParams) -> None:
        super().__init__(inputs, params)
        self.params, self.device = params, inputs.device
        self.modalities = learn_features(inputs.modalities)  # trained, unlike in the paper
        self.seen = adjacency.interaction_matrix(inputs.split)  # R [U, I]
        self.whole = self.thinned = inputs.user_item
        # S = sum_m alpha_m S_m, [I, I]; alpha_1 is `first`, the others are equal, and all sum to 1
        first, n, n_items = params.first, len(self.modalities), inputs.split.n_items
        shares, graphs = [1.0] if n == 1 else [first] + [(1 - first) / (n - 1)] * (n - 1), []
        for share, edges in zip(shares, inputs.modal_edges, strict=True):
            ones = pa.array(
                np.ones(len(edges), np.float32)
            )  # S_m gives all neighbours the same weight
            equal = edges.set_column(edges.schema.get_field_index("cosine"), "cosine", ones)
            graphs.append(share * adjacency.item_graph(equal, n_items))
        self.item_item = Sparse(sp.csr_array(sum(graphs[1:], start=graphs[0])), inputs.device)
        self.user = xavier_uniform(inputs.split.n_users, params.dim)  # [U, D]
        self.item = xavier_uniform(inputs.split.n_items, params.dim)  # [I, D]
        # without bias, which cancels in the difference of two items
        self.project = nn.ModuleList(
            nn.Linear(m.shape[1], params.dim, bias=False) for m in self.modalities
        )

    def start_epoch(self) -> None:
        # rounded down, as in the reference
        n = int((1 - self.params.drop) * self.seen.nnz)
        self.thinned = Sparse(adjacency.normalise_by_degrees(thin_edges(self.seen, n)), self.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        user_item = self.thinned if self.training else self.whole
        user, item = propagate(user_item, self.user, self.item, self.params.layers)
        return user, item + propagate_steps(self.item_item, self.item, self.params.item_layers)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        users, items = self()
        user = pick_rows(users, batch.users)
        modal = [
            bpr(user, w(pick_rows(f, batch.positives)), w(pick_rows(f, batch.negatives)))
            for w, f in zip(self.project, self.modalities, strict=True)
        ]
        return {
            "bpr": bpr(user, pick_rows(items, batch.positives), pick_rows(items, batch.negatives)),
            "modal": self.params.modal * torch.stack(modal).sum(),
        }


def thin_edges(seen: sp.csr_array, n: int) -> sp.csr_array:
    """Sample n pairs of R, [U, I], without replacement, with torch's global generator (degree-sensitive pruning)."""
    # probability proportional to 1 / sqrt(degree of user x degree of item)
    pairs = sp.coo_array(seen)
    user, item = seen.sum(axis=1)[pairs.row], seen.sum(axis=0)[pairs.col]
    chance = torch.from_numpy(1 / np.sqrt(user * item))
    kept = torch.multinomial(chance, max(1, n)).sort().values.numpy()
    return sp.csr_array((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=seen.shape)
