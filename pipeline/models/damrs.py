"""DA-MRS (Xv et al., KDD 2024): item graphs that agree across modalities, and a ranking that doubts its feedback.

Letters: U users, I items, F_m width of modality m, M modalities, G = M + 1 item graphs, K neighbours, B batch, D width,
R items at a time, L pseudo labels.
"""

from typing import ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pipeline.config.base import Count, Positive, Rate, Weight
from pipeline.interactions import cooccurrence
from pipeline.models import adjacency
from pipeline.models.base import Batch, Inputs, Recommender, embedding, pick, walk
from pipeline.models.infonce import distinct, merges
from pipeline.models.lightgcn import propagate
from pipeline.models.params import Decay, Grid, Train
from pipeline.ops.rows import unit_rows
from pipeline.ops.sparse import Sparse

BLOCK = 256
"""items whose cosines with all others are held at a time"""


class DAMRSParams(Train):
    """What DA-MRS reads."""

    grid: ClassVar[Grid] = {"kl": [1e-3, 1e-2, 0.1, 1.0], "neighbour": [1e-4, 1e-3, 1e-2], "layers": [2, 3, 4]}
    lr: Rate = 1e-3
    lr_decay: Decay = 1.0
    layers: Count = 2
    """LightGCN layers over the user-item graph"""
    item_layers: Count = 1
    """propagations over each item graph; 0: none"""
    least_common: Positive = 2
    """users that two items must share to be neighbours in the session graph"""
    session_neighbours: Positive = 2
    """items with the most common users that an item keeps there"""
    labels: Positive = 10
    """pseudo labels of the neighbour term, of all graphs and of each"""
    temperature: Rate = 0.2
    """of the neighbour term"""
    neighbour: Weight = 1e-3
    """weight of the neighbour term"""
    kl: Weight = 1.0
    """weight of the divergence between behaviour and content"""


class Views(NamedTuple):
    """What the loss reads."""

    user: Tensor
    """after the walk over the user-item graph, [U, D]"""
    item: Tensor
    """the same, [I, D]"""
    content: list[Tensor]
    """after each item graph, G x [I, D], the session graph last"""


class DAMRS(Recommender):
    """score(u, i) = x_u . (x_i + mean_g h_gi), x from LightGCN, h_g the item's ID after item graph g."""

    Params = DAMRSParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: DAMRSParams) -> None:
        super().__init__(inputs, params)
        assert inputs.edges is not None
        self.params, self.graph = params, inputs.user_item
        self.labels = min(params.labels, inputs.split.n_items // 2)
        k = int(inputs.edges["rank"].to_numpy().max()) + 1
        graphs = agreed([f.cpu().numpy() for f in inputs.modalities], k)
        graphs.append(sessions(adjacency.seen(inputs.split), params.least_common, params.session_neighbours))
        self.graphs = [Sparse(graph, inputs.device) for graph in graphs]  # G x [I, I]
        self.user = embedding(inputs.split.n_users, params.dim)  # [U, D]
        self.item = embedding(inputs.split.n_items, params.dim)  # [I, D]

    def views(self) -> Views:
        """Return the walk over the user-item graph, and the IDs after each item graph."""
        user, item = propagate(self.graph, self.user, self.item, self.params.layers)
        return Views(user, item, [walk(graph, self.item, self.params.item_layers) for graph in self.graphs])

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, D] and [I, D]."""
        views = self.views()
        return views.user, views.item + torch.stack(views.content).mean(0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the doubting bpr, the neighbour term and the divergence, weighted."""
        params, views = self.params, self.views()
        mean = torch.stack(views.content).mean(0)  # [I, D]
        user, item = pick(views.user, batch.users), views.item + mean
        ranked = (user * (pick(item, batch.positives) - pick(item, batch.negatives))).sum(1)  # [B]
        believed, doubted = trust(user, views.content, batch)
        bpr = -(believed * nnf.logsigmoid(ranked) + doubted * nnf.logsigmoid(-ranked)).mean()
        items, weights = once(torch.cat([batch.positives, batch.negatives]), user.dtype)
        neighbour = neighbours(views.content, items, weights, self.labels, params.temperature)
        users, user_weights = once(batch.users, user.dtype)
        sides = [nnf.normalize(pick(x, items)) for x in (views.item, mean)]
        divergence = symmetric_kl(pick(views.user, users), sides[0], sides[1])  # [N, N']
        kl = user_weights @ divergence @ weights / (user_weights.sum() * weights.sum())
        return {"bpr": bpr, "neighbour": params.neighbour * neighbour, "kl": params.kl * kl}


def agreed(modalities: list[np.ndarray], k: int) -> list[sp.csr_array]:
    """Return the item graph of each modality, M x float32 [I, I], without an I x I matrix.

    A pair survives whose cosine is at least the mean of all I^2 in every modality. Each item keeps its K nearest
    survivors, itself first. Entries are 1 / sqrt(r_i r_j), r the row sums.
    """
    units = [unit_rows(f)[0] for f in modalities]
    means = [float(np.square(unit.sum(0, dtype=np.float64)).sum()) / len(unit) ** 2 for unit in units]
    n_items = len(units[0])
    rows: list[list[np.ndarray]] = [[] for _ in units]
    columns: list[list[np.ndarray]] = [[] for _ in units]
    for at in range(0, n_items, BLOCK):
        own = np.arange(at, min(at + BLOCK, n_items))
        cosines = [unit[own] @ unit.T for unit in units]
        survives = np.all([c >= mean for c, mean in zip(cosines, means, strict=True)], axis=0)
        for m, cosine in enumerate(cosines):
            kept = np.where(survives, cosine, -np.inf)
            kept[np.arange(len(own)), own] = np.inf
            nearest = np.argsort(-kept, axis=1, kind="stable")[:, :k]
            found = np.take_along_axis(kept, nearest, 1) > -np.inf
            rows[m].append(own[np.nonzero(found)[0]])
            columns[m].append(nearest[found])
    return [indicated(np.concatenate(r), np.concatenate(c), n_items) for r, c in zip(rows, columns, strict=True)]


def sessions(seen: sp.csr_array, least: int, k: int) -> sp.csr_array:
    """Return the item graph of co-purchase, float32 [I, I]: an item, and the K that share the most users with it.

    Args:
        seen: R, float32 [U, I].
        least: users that two items must share.
    """
    blocks = [cooccurrence.top_k(counts, k) for _, counts in cooccurrence.cooccurrences(sp.csr_array(seen.T), least)]
    near = sp.csr_array(sp.vstack(blocks, format="csr"))
    own = np.arange(near.shape[0])
    rows = np.concatenate([cooccurrence.rows(near), own])
    return indicated(rows, np.concatenate([near.indices, own]), len(own))


def indicated(rows: np.ndarray, columns: np.ndarray, n_items: int) -> sp.csr_array:
    """Return D^-1/2 W D^-1/2, float32 [I, I], W 1 at the given places, D its row sums on both sides."""
    degree = np.bincount(rows, minlength=n_items)
    values = (1 / np.sqrt(degree[rows] * degree[columns])).astype(np.float32)
    return sp.csr_array((values, (rows, columns)), shape=(n_items, n_items))


@torch.no_grad()
def trust(user: Tensor, content: list[Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
    """Return how much a pair counts as it is, and how much as its opposite, [B] each, by x_u [B, D] and G x [I, D].

    P_g = sigmoid(u . unit(h_g)) of the positive. As it is: mean_g P exp(-var_g P)^2. As its opposite, where the
    mean is below that of all negatives, n: clamp(max_g P - n, 0, 1).
    """
    positive, negative = (
        torch.stack([(user * nnf.normalize(pick(h, rows))).sum(1).sigmoid() for h in content])  # [G, B]
        for rows in (batch.positives, batch.negatives)
    )
    mean, usual = positive.mean(0), negative.mean()
    doubted = (positive.amax(0) - usual).clamp(0, 1) * (mean < usual)
    return mean * (-2 * positive.var(0)).exp(), doubted


def once(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return rows and weights, such that each of the distinct rows weighs 1: int64 [N] and float [N]."""
    if not merges(rows.device):
        return rows, (1 / (rows[:, None] == rows).sum(1)).to(dtype)
    found = distinct(rows)
    return found.rows, (found.counts > 0).to(dtype)


def neighbours(content: list[Tensor], items: Tensor, weights: Tensor, labels: int, temperature: float) -> Tensor:
    """Return the neighbour term, over weighed items [N] and graphs h_g, G x [I, D], of `labelled`."""
    units = [nnf.normalize(h) for h in content]
    total = weights.new_zeros(())
    for at in range(0, len(items), BLOCK):  # a block's cosines are computed again for its gradient, not kept
        part = slice(at, at + BLOCK)
        terms = checkpoint(labelled, items[part], labels, temperature, *units, use_reentrant=False)
        total = total + (terms * weights[part]).sum()
    return total / weights.sum() / len(content)


def labelled(items: Tensor, labels: int, temperature: float, *units: Tensor) -> Tensor:
    """Return -ln(e(common) / e(all)) - ln(e(own) / (e(all) - e(common))), summed over graphs, [R].

    e is the sum of exp(cos / t). Common to the graphs are the L items with the largest sum of all softmaxed cosines,
    the graph's own counted twice; its own are the L largest of the others.

    Args:
        items: int64 [R].
        labels: L, at most I / 2.
        units: directions of h_g, G x [I, D].
    """
    cosines = [pick(unit, items) @ unit.T for unit in units]  # G x [R, I]
    with torch.no_grad():
        chances = [cosine.softmax(1) for cosine in cosines]
        together = torch.stack(chances).sum(0)
    total = cosines[0].new_zeros(len(items))
    for cosine, chance in zip(cosines, chances, strict=True):
        common = (together + chance).topk(labels).indices  # [R, L]
        own = chance.scatter(1, common, 0).topk(labels).indices
        e = (cosine / temperature).exp()
        whole, shared = e.sum(1), e.gather(1, common).sum(1)
        total = total - (shared / whole + 1e-9).log() - (e.gather(1, own).sum(1) / (whole - shared) + 1e-9).log()
    return total


def symmetric_kl(user: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return KL(p|q) + KL(q|p) of every pair, [N, N'], p and q of one outcome: sigmoid(u . i) for each of two i.

    With logits a and b it is (p - q) (a - b). Users are [N, D], items [N', D] each.
    """
    a, b = user @ first.T, user @ second.T
    return (a.sigmoid() - b.sigmoid()) * (a - b)
