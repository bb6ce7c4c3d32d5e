"""Ablations of AlignRec: a part left out, or a step of the published code undone.

Rows of `benchmark.ablations` are trained with this recommender; keys are those of `train` and of
AblationParams.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as nnf
from torch import Tensor

from alignrec.pipeline.models.alignrec import AlignRec, AlignRecParams, BatchRows, uia_loss
from alignrec.pipeline.models.base import Batch, Inputs, bpr, l2
from alignrec.pipeline.models.infonce import Distinct
from alignrec.pipeline.models.lightgcn import propagate


class AblationParams(AlignRecParams):
    """Parameters of ablations of AlignRec; defaults are those of AlignRec itself."""

    content: bool = True
    """content branch; false: ID branch only, without CCA and REG"""
    gate: bool = True
    """content gates ID embeddings; false: projected features are propagated directly"""
    cca_users: bool = True
    """CCA also of users, as published; the paper's is of items only"""
    self_neighbour: bool = True
    """items are their own neighbours, as published"""
    symmetric: bool = False
    """undirected item graph; published: directed, from an item to its neighbours"""
    fixed_target: bool = False
    """REG compares with the features before training; published: with the trained ones"""
    reg_cosine: bool = False
    """REG compares cosines of the content branch; published: its dot products"""
    l2_constant: bool = True
    """L2 is divided by batch_size, as published; false: by the size, smaller in the last batch"""
    cold: Literal["drawn", "zero"] = "drawn"
    """ID embeddings of items without train interactions when items are ranked: random, as
    published, or zero, so that neighbours decide"""


class AblatedAlignRec(AlignRec):
    """AlignRec with the changes that its parameters name."""

    Params = AblationParams
    params: AblationParams

    def __init__(self, inputs: Inputs, params: AblationParams) -> None:
        assert inputs.edges is not None
        assert inputs.features is not None
        edges = inputs.edges
        if not params.self_neighbour:
            edges = drop_self_edges(edges)
        if params.symmetric:
            edges = mirror_edges(edges, inputs.split.n_items)
        super().__init__(replace(inputs, edges=edges), params)

        self.original_features = inputs.features  # [I, F]
        has_train = np.isin(np.arange(inputs.split.n_items), inputs.split.train.items)
        warm = torch.from_numpy(has_train[:, None].astype(np.float32))
        self.warm = warm.to(inputs.device)  # [I, 1], 1 for items with train interactions

        if not (params.gate and params.content):
            del self.w2
        if not params.content:
            del self.w1, self.features

    @property
    def target(self) -> Tensor:
        return self.original_features if self.params.fixed_target else self.features.detach()

    @property
    def item_ids(self) -> Tensor:
        """ID embeddings of items, [I, D]."""
        hides_cold = self.params.cold == "zero" and not self.training
        return self.item * self.warm if hides_cold else self.item

    def forward(self) -> tuple[Tensor, Tensor]:
        return super().forward() if self.params.content else self.id_branch()

    def id_branch(self) -> tuple[Tensor, Tensor]:
        return propagate(self.user_item, self.user, self.item_ids, self.params.layers)

    def content_input(self) -> Tensor:
        if not self.params.gate:
            return self.project(self.w1.weight, self.w1.bias)
        return self.item_ids * self.content_gate()

    def tables(self) -> tuple[Tensor, ...]:
        return super().tables() if self.params.content else self.id_branch()

    def terms(self, batch: Batch, *tables: Tensor) -> dict[str, Tensor]:
        if self.params.content:
            return super().terms(batch, *tables)

        rows = BatchRows.of(batch)
        user, positive, negative = rows.repeat(*rows.pick(*tables))
        return {
            "bpr": bpr(user, positive, negative),
            "l2": self.params.l2 * self.l2_penalty(user, positive, negative),
            "uia": self.params.uia * uia_loss(user, positive),
        }

    def user_cca(self, content: Tensor, ids: Tensor, users: Distinct) -> Tensor:
        if not self.params.cca_users:
            return torch.zeros((), device=content.device)
        return super().user_cca(content, ids, users)

    def regulariser(self, content: Tensor, items: Distinct) -> Tensor:
        compared = nnf.normalize(content) if self.params.reg_cosine else content
        return super().regulariser(compared, items)

    def l2_penalty(self, *rows: Tensor) -> Tensor:
        if self.params.l2_constant:
            return super().l2_penalty(*rows)
        return l2(*rows, batch_size=len(rows[0]))


def drop_self_edges(edges: pa.Table) -> pa.Table:
    """Return the edges, schema EDGES, between different items."""
    return edges.filter(pc.not_equal(edges["item_id"], edges["neighbour_id"]))


def mirror_edges(edges: pa.Table, n_items: int) -> pa.Table:
    """Return item_id, neighbour_id and cosine of the edges, schema EDGES, in both directions."""
    item = edges["item_id"].to_numpy()
    neighbour = edges["neighbour_id"].to_numpy()
    start = np.concatenate([item, neighbour])
    end = np.concatenate([neighbour, item])
    cosine = np.tile(edges["cosine"].to_numpy(), 2)

    # two items that are neighbours of each other have the edge already
    _, first = np.unique(start.astype(np.int64) * n_items + end, return_index=True)
    return pa.table({"item_id": start[first], "neighbour_id": end[first], "cosine": cosine[first]})
