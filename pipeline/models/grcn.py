"""GRCN (Wei et al., MM 2020): content weighs interactions, a soft pruning.

Letters in shapes: see base.py.
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from alignrec.pipeline.linalg.sparse import SparsityPattern
from alignrec.pipeline.models.base import (
    Batch,
    Inputs,
    Recommender,
    bpr,
    normal_pair,
    pair_squares,
    pick_rows,
    xavier_normal,
)
from alignrec.pipeline.models.params import Multimodal

# Unlike the paper, the reference implementation has no effective routing, as its routing reads rows
# of zeros. It weights edges by the sender's trust, normalises content and the IDs of layer 0, adds
# neighbours to prototypes and content, and penalises the mean squares of the tables (l2).
REFINED_GRAPH_LAYERS = 2  # graph convolutions over the refined graph


class GRCN(Recommender):
    """score(u, i) = [e_u | p_u1 | ..] . [e_i | q_i1 | ..].

    e are IDs on the refined graph, p prototypes, and q content.
    """

    Params = Multimodal
    needs = frozenset({"features"})

    def __init__(self, inputs: Inputs, params: Multimodal) -> None:
        super().__init__(inputs, params)
        self.l2 = params.l2
        self.modalities = inputs.modalities
        split = inputs.split
        dim = params.dim
        m = len(self.modalities)
        n_users = split.n_users
        n_items = split.n_items
        train = split.train
        self.edges = SparsityPattern(train.users, train.items, (n_users, n_items), inputs.device)

        self.project = nn.ModuleList(nn.Linear(f.shape[1], dim) for f in self.modalities)
        self.user, self.item = normal_pair(n_users, n_items, dim)  # [U, D], [I, D]
        self.user_trust, self.item_trust = normal_pair(n_users, n_items, m)  # [U, M], [I, M]
        prototypes = [xavier_normal(n_users, dim) for _ in range(m)]
        self.prototype = nn.ParameterList(prototypes)  # M x [U, D]
        for linear in self.project:
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_normal_(linear.weight)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return [U, D (1 + M)] and [I, D (1 + M)]."""
        edges = self.edges
        back = self.edges.T
        content = self._project_content()  # q, M x [I, D]
        prototypes = [nnf.normalize(p) for p in self.prototype]  # p, M x [U, D]

        affinity = [edges.dots(p, q) for p, q in zip(prototypes, content, strict=True)]  # M x [E]
        from_item = [edges.softmax(a) for a in affinity]  # M x [E]
        from_user = [back.softmax(a) for a in affinity]  # M x [E]
        item_trust = [back.of_row(trust) for trust in self.item_trust.unbind(1)]  # M x [E]
        to_user = refine_weights(from_item, item_trust)  # [E]
        user_trust = [edges.of_row(trust) for trust in self.user_trust.unbind(1)]  # M x [E]
        to_item = refine_weights(from_user, user_trust)  # [E]

        user = nnf.normalize(self.user)
        item = nnf.normalize(self.item)
        users = user
        items = item
        for _ in range(REFINED_GRAPH_LAYERS):
            user, item = edges.product(to_user, item), back.product(to_item, user)
            users = users + user
            items = items + item

        user_parts = [users]
        for attention, p, q in zip(from_item, prototypes, content, strict=True):
            user_parts.append(p + edges.product(attention, q))

        item_parts = [items]
        for attention, p, q in zip(from_user, prototypes, content, strict=True):
            item_parts.append(q + back.product(attention, p))
        return torch.cat(user_parts, 1), torch.cat(item_parts, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        squares = [pick_rows(p, batch.users).square().mean() for p in self.prototype]
        of_batch = torch.stack(squares).sum()
        return {
            "bpr": bpr(*batch.rows(*self())),
            "l2_ids": self.l2 * pair_squares(*batch.rows(self.user, self.item)),
            "l2_prototype": self.l2 * (self.prototype[-1].square().mean() + of_batch),
        }

    def _project_content(self) -> list[Tensor]:
        projected = []
        for linear, features in zip(self.project, self.modalities, strict=True):
            projected.append(nnf.normalize(nnf.leaky_relu(linear(features))))
        return projected


def refine_weights(attention: list[Tensor], trust: list[Tensor]) -> Tensor:
    """Soft pruning: s_e = ReLU(max_m c_me a_me), [E], for trust c and attention a, M x [E].

    `attention` is a softmax over each receiver's edges.
    """
    weighted = [a * c for a, c in zip(attention, trust, strict=True)]
    return torch.stack(weighted).amax(0).relu()
