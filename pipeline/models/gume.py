"""GUME (Lin et al., CIKM 2024): items that all modalities call neighbours join the user-item graph, for the long tail.

Letters: U users, I items, N either, F_m width of modality m, M modalities, K neighbours, B batch, D width.
"""

from functools import reduce
from itertools import combinations
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Rate, Weight
from pipeline.models import adjacency
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, learned, pick, walk
from pipeline.models.infonce import cosine_nce, distinct
from pipeline.models.mgcn import Fuser
from pipeline.models.params import Grid, Regularised
from pipeline.ops.sparse import Sparse

NOISE = 0.1  # length of noise
Sides = tuple[Tensor, Tensor]  # rows of users [U, D] and of items [I, D]


class GUMEParams(Regularised):
    """Keys of GUME."""

    grid: ClassVar[Grid] = {
        "behaviour": [1e-3, 1e-2, 0.1],
        "behaviour_temperature": [0.1, 0.2, 0.4, 0.6],
        "users": [1e-3, 1e-2, 0.1],
        "users_temperature": [0.1, 0.2, 0.4],
        "align": [0.1, 0.2, 0.3],
    }
    lr: Rate = 1e-3
    l2: Weight = 1e-5  # weight of the final vectors' squares
    extended_l2: Weight = 0.1  # weight of the squares of the positives' extended vectors
    layers: Count = 3  # layers over the graph of users and items
    item_layers: Count = 2  # propagations over the item graph of each modality; 0: none
    align: Weight = 0.1  # weight of the distance between the modalities' distributions
    behaviour: Weight = 0.01  # weight of the contrast of behaviour and content
    behaviour_temperature: Rate = 0.4
    users: Weight = 0.01  # weight of the contrasts of users' extended and integrated content
    users_temperature: Rate = 0.1


class Graph(NamedTuple):
    """The user-item graph with edges between items, divided by the roots of both ends' degrees."""

    user_item: Sparse  # [U, I]
    item_item: Sparse  # [I, I], the added edges

    def mean(self, user: Tensor, item: Tensor, layers: int) -> Sides:
        """Return the mean of layers 0 .. L, [U, D] and [I, D]."""
        users, items = user, item
        for _ in range(layers):
            user, item = self.user_item.dot(item), self.user_item.T.dot(user) + self.item_item.dot(item)
            users, items = users + user, items + item
        return users / (layers + 1), items / (layers + 1)


class GUME(Recommender):
    """score(u, i) = x_u . x_i, x = c + integrated: behaviour, and the modalities fused by MGCN's fuser.

    Features learn, as in the reference. With one modality the integrated view is that modality's.
    """

    Params = GUMEParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: GUMEParams) -> None:
        super().__init__(inputs, params)
        self.params, self.modalities = params, learned(inputs.modalities)
        n_users, n_items, dim = inputs.split.n_users, inputs.split.n_items, params.dim
        blocks = extended_graph(adjacency.seen(inputs.split), agreement(inputs.modal_edges, n_items))
        self.graph = Graph(*(Sparse(block, inputs.device) for block in blocks))
        self.item_item = [Sparse(adjacency.item_graph(e, n_items), inputs.device) for e in inputs.modal_edges]
        self.user, self.item = embedding(n_users, dim), embedding(n_items, dim)  # [U, D], [I, D]
        self.extended_user = nn.ParameterList(embedding(n_users, dim) for _ in self.modalities)
        self.project = nn.ModuleList(nn.Linear(m.shape[1], dim) for m in self.modalities)
        self.gate = nn.ModuleList(nn.Linear(dim, dim) for _ in self.modalities)
        self.fuser = Fuser(len(self.modalities), dim)

    def views(self) -> tuple[Sides, list[Sides], Sides, Sides]:
        """Return the behaviour, the content of each modality, and the extended and the integrated content."""
        behaviour = self.graph.mean(self.user, self.item, self.params.layers)
        content: list[Sides] = []
        for features, w1, w2, item_item in zip(self.modalities, self.project, self.gate, self.item_item, strict=True):
            item = walk(item_item, self.item * torch.sigmoid(w2(w1(features))), self.params.item_layers)
            content.append((self.graph.user_item.dot(item), item))
        pairs = zip(self.extended_user, content, strict=True)
        each = [self.graph.mean(user, item, self.params.layers) for user, (_, item) in pairs]
        extended = torch.stack([user for user, _ in each]).mean(0), torch.stack([item for _, item in each]).mean(0)
        users, items = (self.fuser([pair[side] for pair in content], behaviour[side]) for side in (0, 1))
        return behaviour, content, extended, (users, items)

    def forward(self) -> Sides:
        behaviour, _, _, integrated = self.views()
        return behaviour[0] + integrated[0], behaviour[1] + integrated[1]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        params, (behaviour, content, extended, integrated) = self.params, self.views()
        users, items = behaviour[0] + integrated[0], behaviour[1] + integrated[1]
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        (at_users, _, n_users), (at_items, _, n_items) = distinct(batch.users), distinct(batch.positives)
        near = [
            cosine_nce(pick(x, at), pick(y, at), n, params.behaviour_temperature)
            for x, y, at, n in zip(integrated, behaviour, (at_users, at_items), (n_users, n_items), strict=True)
        ]
        views = [
            (extended[0], integrated[0]),
            *((perturb(x), perturb(x)) for x in (integrated[0], extended[0])),
        ]
        contrasts = [
            cosine_nce(pick(x, at_users), pick(y, at_users), n_users, params.users_temperature) for x, y in views
        ]
        extended_l2 = l2(pick(extended[1], batch.positives), batch_size=params.batch_size)
        return {
            "bpr": bpr(*rows),
            "l2": params.l2 * l2(*rows, batch_size=params.batch_size),
            "extended_l2": params.extended_l2 * extended_l2,
            "align": params.align * alignment([torch.cat(view) for view in content]),
            "behaviour": params.behaviour * torch.stack(near).sum(),
            "users": params.users * torch.stack(contrasts).sum(),
        }


def agreement(modal_edges: list[pa.Table], n_items: int) -> sp.csr_array:
    """Return 1 where an item is among another's K neighbours in every modality, float32 [I, I]; not symmetric."""
    found = []
    for edges in modal_edges:
        rows, columns = (edges[name].to_numpy() for name in ("item_id", "neighbour_id"))
        others = rows != columns
        ones = np.ones(int(others.sum()), np.float32)
        found.append(sp.csr_array((ones, (rows[others], columns[others])), shape=(n_items, n_items)))
    return sp.csr_array(reduce(sp.csr_array.multiply, found))


def extended_graph(seen: sp.csr_array, added: sp.csr_array) -> tuple[sp.csr_array, sp.csr_array]:
    """Return the blocks [U, I] and [I, I] of D^-1/2 A D^-1/2, D the row sums of A: train pairs and edges of items."""
    user, item = (
        sp.diags_array(np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0).astype(np.float32))
        for degree in (seen.sum(axis=1), seen.sum(axis=0) + added.sum(axis=1))
    )
    return sp.csr_array(user @ seen @ item), sp.csr_array(item @ added @ item)


def alignment(tables: list[Tensor]) -> Tensor:
    """Return |var x - var y| + |mean x - mean y| over all pairs of tables, each one number a table."""
    moments = [(x.var(), x.mean()) for x in tables]
    pairs = [(x[0] - y[0]).abs() + (x[1] - y[1]).abs() for x, y in combinations(moments, 2)]
    return torch.stack(pairs).sum() if pairs else tables[0].new_zeros(())


def perturb(x: Tensor) -> Tensor:
    """Return vectors with noise of length NOISE added, each entry away from 0."""
    return x + NOISE * x.sign() * nnf.normalize(uniform(x))


def uniform(like: Tensor) -> Tensor:
    """Return noise in [0, 1) of a tensor's shape, from torch's global generator."""
    return torch.rand_like(like)
