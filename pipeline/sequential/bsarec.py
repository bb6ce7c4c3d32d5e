"""BSARec (Shin et al., AAAI 2024): self-attention beside a filter of the history's frequencies.

Letters: b histories, T items of each, D width, H heads, C low frequencies, I items.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.base import Positive, Share
from pipeline.sequential.params import Generative
from pipeline.sequential.sasrec import SASRec
from pipeline.sequential.sequences import PAD


class BSARecParams(Generative):
    """What BSARec reads."""

    grid: ClassVar[dict[str, list[int | float]]] = {"share": [0.1, 0.3, 0.5, 0.7, 0.9], "low": [1, 3, 5, 7, 9]}
    share: Share = 0.7
    """of the filter in the sum with self-attention, alpha"""
    low: Positive = 5
    """lowest frequencies that pass as they are, c; the others are multiplied by a learned square"""


class Filter(nn.Module):
    """LN(x + low + beta^2 high): the history's C lowest frequencies over time, and the others rescaled."""

    def __init__(self, dim: int, low: int, dropout: float) -> None:
        super().__init__()
        self.low = low
        self.scale = nn.Parameter(torch.randn(dim))  # beta, [D]
        self.norm, self.drop = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return [b, T, D] of [b, T, D]."""
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho")  # [b, T / 2 + 1, D]
        kept = spectrum * (torch.arange(spectrum.shape[1], device=x.device) < self.low)[:, None]
        low = torch.fft.irfft(kept, n=x.shape[1], dim=1, norm="ortho")
        return self.norm(x + self.drop(low + self.scale.square() * (x - low)))


class Attention(nn.Module):
    """LN(x + MH(x)), causal, with a matrix after the heads."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.norm, self.drop = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return [b, T, D] of [b, T, D]; mask bool [b, 1, T, T], which items each may read."""
        b, t, d = x.shape
        q, k, v = (
            part(x).view(b, t, self.heads, d // self.heads).transpose(1, 2)  # [b, H, T, D/H]
            for part in (self.query, self.key, self.value)
        )
        rate = self.rate if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        return self.norm(x + self.drop(self.out(read.transpose(1, 2).reshape(b, t, d))))


class Block(nn.Module):
    """y = alpha filter(x) + (1 - alpha) attention(x), then LN(y + FFN(y)), FFN of width 4 D with GELU."""

    def __init__(self, params: BSARecParams) -> None:
        super().__init__()
        dim, dropout = params.dim, params.dropout
        self.share = params.share
        self.filter, self.attend = Filter(dim, params.low, dropout), Attention(dim, params.heads, dropout)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return [b, T, D] of [b, T, D]."""
        y = self.share * self.filter(x) + (1 - self.share) * self.attend(x, mask)
        return self.norm(y + self.feed(y))


class BSARec(SASRec):
    """Score of item i after a history: r_i = h . e_i, h the last block's output at the latest item.

    The filter reads the whole window, so a window trains its last item alone, by cross-entropy over all items; and a
    window always has its full length, padding included, so that a history is ranked the same in every batch.
    """

    every: ClassVar[bool] = False
    Params: ClassVar[type[Generative]] = BSARecParams

    def build(self, params: Generative) -> None:
        """Draw what follows the embeddings."""
        assert isinstance(params, BSARecParams)
        self.first = nn.LayerNorm(params.dim)
        self.blocks = nn.ModuleList(Block(params) for _ in range(params.layers))

    def forward(self, histories: Tensor, table: Tensor) -> Tensor:
        """Return what the last block makes of each place: int64 [b, T], items [I + 1, D] -> [b, T, D]."""
        t, device = histories.shape[1], histories.device
        places = self.positions(torch.arange(t - 1, -1, -1, device=device))
        x = self.drop(self.first(F.embedding(histories + 1, table, padding_idx=0) + places))
        causal = torch.ones(t, t, dtype=torch.bool, device=device).tril()
        itself = torch.eye(t, dtype=torch.bool, device=device)  # or the softmax of a padded place would have no term
        mask = causal & ((histories != PAD)[:, None, :] | itself)
        for block in self.blocks:
            x = block(x, mask[:, None])
        return x

    def window(self, histories: Tensor) -> Tensor:
        """Return histories [b, T] as whole windows."""
        missing = self.positions.num_embeddings - histories.shape[1]
        return F.pad(histories[:, max(-missing, 0) :], (max(missing, 0), 0), value=PAD)

    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean of -log softmax(r)_target over each window's last item."""
        table = self.items()
        last = self(self.window(windows[:, :-1]), table)[:, -1]
        return F.cross_entropy(last @ table[1:].T, windows[:, -1])
