"""SMORE (Ong and Khong, WSDM 2025): content filtered and fused in the spectrum of its projection.

Letters: U users, I items, N either, F_m width of modality m, M modalities, D width, S = D / 2 + 1 frequencies, B batch.
"""

from functools import reduce
from typing import ClassVar

import scipy.sparse as sp
import torch
from torch import Tensor, nn

from pipeline.config.base import Count, Rate, Share
from pipeline.models import adjacency
from pipeline.models.base import Inputs, drop, embedding, learned, walk
from pipeline.models.lightgcn import propagate
from pipeline.models.mgcn import TwoViews, TwoViewsParams, purify
from pipeline.models.params import Grid
from pipeline.ops.sparse import Sparse


class SMOREParams(TwoViewsParams):
    """What SMORE reads."""

    grid: ClassVar[Grid] = {
        "lr": [1e-4, 5e-4, 1e-3],
        "layers": [3, 4],
        "contrast": [1e-3, 1e-2, 1e-1],
        "drop": [0.0, 0.1, 0.2, 0.3],
    }
    lr: Rate = 1e-3
    layers: Count = 4
    """LightGCN layers over the user-item graph"""
    drop: Share = 0.1
    """share of each preference gate that a training step lacks"""


class SMORE(TwoViews):
    """score(u, i) = x_u . x_i, x = c + side: behaviour, and the mean of gated views of each modality and their fusion.

    Features learn, as in the reference. The paper's temperature is a setting there that is not read.
    """

    Params = SMOREParams
    params: SMOREParams
    needs = frozenset({"features", "edges"})

    def __init__(self, inputs: Inputs, params: SMOREParams) -> None:
        super().__init__(inputs, params)
        self.params, self.graph, dim = params, inputs.user_item, params.dim
        self.modalities = learned(inputs.modalities)
        graphs = [adjacency.item_graph(edges, inputs.split.n_items) for edges in inputs.modal_edges]
        graphs.append(reduce(sp.csr_array.maximum, graphs))  # over the union of their edges
        self.item_item = [Sparse(sp.csr_array(graph), inputs.device) for graph in graphs]  # M + 1, the fusion's last
        self.user = embedding(inputs.split.n_users, dim)  # [U, D]
        self.item = embedding(inputs.split.n_items, dim)  # [I, D]
        views = range(len(self.modalities) + 1)
        self.project = nn.ModuleList(nn.Linear(m.shape[1], dim) for m in self.modalities)
        self.filters = nn.ParameterList(torch.randn(dim // 2 + 1, 2) for _ in views)  # real and imaginary parts
        self.gate = nn.ModuleList(nn.Linear(dim, dim) for _ in views)
        self.prefer = nn.ModuleList(nn.Linear(dim, dim) for _ in views)
        self.attend = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, dim, bias=False)) for _ in self.modalities
        )

    def spectra(self) -> list[Tensor]:
        """Return each modality's projection, and their product, filtered by frequency: (M + 1) x [I, D]."""
        dim = self.params.dim
        content = [w(f) for w, f in zip(self.project, self.modalities, strict=True)]  # M x [I, D]
        spectra = [torch.fft.rfft(x, norm="ortho") for x in content]  # M x [I, S]
        spectra.append(reduce(torch.mul, spectra))
        filters = [torch.view_as_complex(f) for f in self.filters]  # (M + 1) x [S]
        return [torch.fft.irfft(x * f, n=dim, norm="ortho") for x, f in zip(spectra, filters, strict=True)]

    def views(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return behaviour and side views, each of users [U, D] and of items [I, D]."""
        behaviour = propagate(self.graph, self.user, self.item, self.params.layers)
        content: list[tuple[Tensor, Tensor]] = []
        for x, gate, graph in zip(self.spectra(), self.gate, self.item_item, strict=True):
            item = walk(graph, purify(self.item, gate(x)), self.params.item_layers)
            content.append((self.graph.dot(item), item))
        users, items = (self._fuse([pair[side] for pair in content], behaviour[side]) for side in (0, 1))
        return behaviour, (users, items)

    def _fuse(self, content: list[Tensor], behaviour: Tensor) -> Tensor:
        """Return the mean of the views [N, D], each gated by behaviour, those of modalities weighed by the fusion's."""
        *single, fused = content
        weighed = [attend(fused).softmax(1) * x for attend, x in zip(self.attend, single, strict=True)]
        gates = [torch.sigmoid(prefer(behaviour)) for prefer in self.prefer]
        if self.training:
            gates = [drop(gate, self.params.drop) for gate in gates]
        return torch.stack([gate * x for gate, x in zip(gates, [*weighed, fused], strict=True)]).mean(0)
