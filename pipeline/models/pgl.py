"""PGL (Yu et al., AAAI 2025): principal subgraphs of the user-item graph to train on, the whole one to rank by.

Letters: U users, I items, F_m width of modality m, M modalities, D width, B batch.
"""

from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Rate, Share, Weight
from pipeline.models import adjacency, freedom
from pipeline.models.base import Batch, Inputs, Recommender, bpr, drop, embedding, learned, pick, walk
from pipeline.models.infonce import info_nce
from pipeline.models.lightgcn import propagate
from pipeline.models.params import Grid, Train
from pipeline.ops.sparse import Sparse
from pipeline.ops.svd import right_vectors
from pipeline.seeds import seed_for

SMALLEST = 1e-3
"""entries of the global subgraph below it are 0"""
BLOCK = 1 << 22
"""entries of the global subgraph that are held dense at a time"""


class PGLParams(Train):
    """What PGL reads."""

    grid: ClassVar[Grid] = {"keep": [0.1, 0.2, 0.3, 0.4, 0.5], "contrast": [0.0, 1e-3, 1e-2], "drop": [0.1, 0.2, 0.3]}
    lr: Rate = 1e-3
    layers: Count = 2
    """LightGCN layers over the user-item graph"""
    item_layers: Count = 1
    """propagations over the item graph; 0: none"""
    first: Share = 0.9
    """weight of the first modality's item graph; the others share the rest"""
    mode: Literal["local", "global"] = "local"
    """subgraph of training: a draw of pairs for each epoch, or the principal part of the whole graph"""
    keep: Share = 0.3
    """share of pairs that an epoch has in mode local"""
    drop: Share = 0.2
    """share of a vector that each side of the contrastive loss lacks"""
    temperature: Rate = 0.2
    """of the contrastive loss"""
    contrast: Weight = 0.0
    """weight of the contrastive loss between two thinned copies of a batch; 0, as published: none"""


class PGL(Recommender):
    """score(u, i) = x_u . (x_i + S q_i), q the projected content of length 1, x its walk; items have no ID.

    Features learn, as in the reference.
    """

    Params = PGLParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: PGLParams) -> None:
        super().__init__(inputs, params)
        self.params, self.device = params, inputs.device
        self.seen = adjacency.seen(inputs.split)  # R [U, I]
        self.whole = self.subgraph = inputs.user_item
        if params.mode == "global":
            self.subgraph = Sparse(principal(adjacency.balance(self.seen), params.dim), inputs.device)
        self.item_item = freedom.mixed(inputs, params.first)  # S [I, I]
        self.modalities = learned(inputs.modalities)
        self.users = nn.ParameterList(embedding(inputs.split.n_users, params.dim) for _ in self.modalities)
        self.project = nn.ModuleList(nn.Linear(m.shape[1], params.dim) for m in self.modalities)

    def start_epoch(self) -> None:
        """Draw the epoch's pairs."""
        if self.params.mode == "local":
            pairs = freedom.thin(self.seen, int(self.params.keep * self.seen.nnz))
            self.subgraph = Sparse(adjacency.balance(pairs), self.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, M D] and [I, M D]; outside training on the whole user-item graph."""
        graph = self.subgraph if self.training else self.whole
        content = [nnf.normalize(w(f)) for w, f in zip(self.project, self.modalities, strict=True)]
        item = torch.cat(content, 1)
        users, items = propagate(graph, torch.cat(list(self.users), 1), item, self.params.layers)
        return users, items + walk(self.item_item, item, self.params.item_layers)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr, and the contrast of two thinned copies if it has a weight."""
        users, items = self()
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        terms, params = {"bpr": bpr(*rows)}, self.params
        weight, drop, temperature = params.contrast, params.drop, params.temperature
        if weight:
            sides = torch.stack([self_contrast(x, drop, temperature) for x in rows[:2]])
            terms["contrast"] = weight * sides.mean()
        return terms


def principal(user_item: sp.csr_array, dim: int) -> sp.csr_array:
    """Return the user-item block of the global subgraph, sparse float32 [U, I].

    The graph [[0, R], [R^T, 0]] has each singular value of R twice. Of its D largest the first quarter of vectors
    stays, each with its value times that of its place in the last quarter: sum_j s_j s_{3D/8 + j} u_j v_j^T over j up
    to D/8 in terms of R's own.

    Args:
        user_item: R_hat, float32 [U, I].
        dim: D, at least 8 for a quarter to be whole pairs.
    """
    matrix = user_item.astype(np.float64)
    right = right_vectors(matrix, max(dim // 2, 1), seed_for("pgl", "subgraph"))  # [I, D/2]
    images = matrix @ right  # [U, D/2]
    values = np.linalg.norm(images, axis=0)
    n = min(max(dim // 8, 1), len(values))
    last = np.minimum(np.arange(n) + 3 * dim // 8, len(values) - 1)
    scaled, v = images[:, :n] * values[last], right[:, :n].T  # s u times the value of the other place
    blocks, step = [], max(1, BLOCK // matrix.shape[1])
    for at in range(0, matrix.shape[0], step):
        dense = (scaled[at : at + step] @ v).astype(np.float32)
        blocks.append(sp.csr_array(np.where(np.abs(dense) < SMALLEST, 0, dense)))
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def self_contrast(x: Tensor, rate: float, temperature: float) -> Tensor:
    """-mean_i log softmax_j(cos(x'_i, x''_j) / t)[i] of two thinned copies of [B, M D], repeats thinned apart."""
    first, second = (nnf.normalize(drop(x, rate)) for _ in range(2))
    return info_nce(first, second, x.new_ones(len(x)), temperature)
