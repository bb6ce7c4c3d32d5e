"""GRCN (Wei et al., MM 2020): content weighs each interaction, a soft pruning of the user-item graph.

The reference routes nothing, as its routing reads rows that are zero; it weighs by the sender's trust, gives content,
and IDs in layer 0, length 1, lets prototypes and content take up what neighbours send, and takes l2 of mean squares of
the tables. The paper routes, and weighs by the receiver's trust; l2 halves squares of final rows.

Letters: U users, I items, F_m width of modality m, M modalities, E train pairs, B batch, D width.
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from pipeline.config.base import Count, Positive, Rate
from pipeline.models.base import Batch, Inputs, Recommender, bpr, embedding, l2, normal, normal_pair, pair_squares, pick
from pipeline.models.params import Regularised, Varied
from pipeline.ops.edges import SparsityPattern


class GRCNParams(Varied, Regularised):
    """What GRCN reads; the learning rate is that of the published benchmarks."""

    lr: Rate = 1e-3
    layers: Count = 2
    """graph convolutions over the refined graph; the published code always takes 2"""
    routings: Positive = 3
    """iterations of neighbour routing T of variant paper; those of the published code change nothing"""


class GRCN(Recommender):
    """score(u, i) = [e_u | p_u1 | ..] . [e_i | q_i1 | ..]: IDs on the refined graph beside prototypes and content.

    The published code ranks by vectors from before the last step of Adam; here they are always the current ones.
    """

    Params = GRCNParams
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: GRCNParams) -> None:
        super().__init__(inputs, params)
        self.l2, self.batch_size, self.layers = params.l2, params.batch_size, params.layers
        self.is_paper, self.routings = params.variant == "paper", params.routings
        split = inputs.split
        n_users, n_items, dim = split.n_users, split.n_items, params.dim
        self.edges = SparsityPattern(split.train.users, split.train.items, (n_users, n_items), inputs.device)
        self.modalities = inputs.modalities
        self.project = nn.ModuleList(nn.Linear(m.shape[1], dim) for m in self.modalities)
        self._draw_tables(n_users, n_items, dim)

    def _draw_tables(self, n_users: int, n_items: int, dim: int) -> None:
        """Draw IDs [U, D] and [I, D], prototypes M x [U, D], and both sides' trust in each modality, [U, M], [I, M]."""
        m = len(self.modalities)
        if not self.is_paper:
            self.user, self.item = normal_pair(n_users, n_items, dim)
            self.user_trust, self.item_trust = normal_pair(n_users, n_items, m)
            self.prototype = nn.ParameterList(normal(n_users, dim) for _ in range(m))
            for linear in self.project:
                assert isinstance(linear, nn.Linear)
                nn.init.xavier_normal_(linear.weight)
        else:
            self.user, self.item = embedding(n_users, dim), embedding(n_items, dim)
            self.user_trust, self.item_trust = (nn.Parameter(torch.ones(n, m)) for n in (n_users, n_items))
            self.prototype = nn.ParameterList(embedding(n_users, dim) for _ in range(m))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, D (1 + M)] and [I, D (1 + M)]."""
        content = [nnf.leaky_relu(w(f)) for w, f in zip(self.project, self.modalities, strict=True)]  # M x [I, D]
        user: Tensor = self.user
        item: Tensor = self.item
        if not self.is_paper:
            content, user, item = [nnf.normalize(q) for q in content], nnf.normalize(user), nnf.normalize(item)
        routings = self.routings if self.is_paper else 0
        prototypes = [
            route(self.edges, p, q, routings) for p, q in zip(self.prototype, content, strict=True)
        ]  # M x [U, D]
        affinity = [self.edges.dots(p, q) for p, q in zip(prototypes, content, strict=True)]  # M x [E]
        from_item = [self.edges.softmax(a) for a in affinity]  # M x [E]
        from_user = [self.edges.T.softmax(a) for a in affinity]  # M x [E]
        to_user = refine(from_item, self._trust(self.edges, self.user_trust, self.item_trust))  # [E]
        to_item = refine(from_user, self._trust(self.edges.T, self.item_trust, self.user_trust))  # [E]
        users, items = user, item
        for _ in range(self.layers):
            user, item = self.edges.product(to_user, item), self.edges.T.product(to_item, user)
            users, items = users + user, items + item
        if not self.is_paper:
            pairs = list(zip(prototypes, content, strict=True))
            prototypes = [p + self.edges.product(a, q) for a, (p, q) in zip(from_item, pairs, strict=True)]
            content = [q + self.edges.T.product(a, p) for a, (p, q) in zip(from_user, pairs, strict=True)]
        return torch.cat([users, *prototypes], 1), torch.cat([items, *content], 1)

    def _trust(self, edges: SparsityPattern, receivers: Tensor, senders: Tensor) -> list[Tensor]:
        """Return each edge's trust in each modality, M x [E]; rows of `edges` receive."""
        if not self.is_paper:
            return [edges.T.of_row(trust) for trust in senders.unbind(1)]
        return [edges.of_row(trust) for trust in receivers.unbind(1)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return bpr and l2: of the tables as published (reference), or of the rows that the batch touches (paper)."""
        users, items = self()
        rows = pick(users, batch.users), pick(items, batch.positives), pick(items, batch.negatives)
        if self.is_paper:
            return {"bpr": bpr(*rows), "l2": self.l2 * l2(*rows, batch_size=self.batch_size)}
        ids = pick(self.user, batch.users), pick(self.item, batch.positives), pick(self.item, batch.negatives)
        own = torch.stack([pick(p, batch.users).square().mean() for p in self.prototype]).sum()
        return {
            "bpr": bpr(*rows),
            "l2_ids": self.l2 * pair_squares(*ids),
            "l2_prototype": self.l2 * (self.prototype[-1].square().mean() + own),
        }


def route(edges: SparsityPattern, prototype: Tensor, content: Tensor, iterations: int) -> Tensor:
    """T iterations p <- norm(p + sum_{i in N_u} softmax_{N_u}(p . q_i) q_i), p [U, D], q [I, D]: neighbour routing."""
    p = nnf.normalize(prototype)
    for _ in range(iterations):
        p = nnf.normalize(p + edges.product(edges.softmax(edges.dots(p, content)), content))
    return p


def refine(attention: list[Tensor], trust: list[Tensor]) -> Tensor:
    """Soft pruning: s_e = ReLU(max_m c_m a_me), a_m a softmax over the edges of each node that receives.

    Args:
        attention: a of every edge, M x [E].
        trust: c, how far a node relies on each modality, of every edge, M x [E].
    """
    return torch.stack([a * c for a, c in zip(attention, trust, strict=True)]).amax(0).relu()
