"""SASRec (Kang and McAuley, ICDM 2018): self-attention over the items that a user had, each an embedding of its own.

Letters: b histories, T items of each, D width, H heads, I items.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.ops.topk import select
from pipeline.sequential.base import Sequential, trimmed
from pipeline.sequential.items import Items, Reads
from pipeline.sequential.params import Generative
from pipeline.sequential.sequences import PAD


class Block(nn.Module):
    """x + SA(x), then x + FFN(LN(x)), with dropout on both branches (section 3.2 of the article)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.attended, self.fed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.feed = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return SA(x) = softmax(Q K^T / sqrt(D/H)) V and FFN(x) = ReLU(x W1 + b1) W2 + b2, added.

        Queries are of LN(x), keys and values of x itself; there is no matrix after the heads.

        Args:
            x: [b, T, D].
            mask: bool [b, 1, T, T], which items each may read.
        """
        b, t, d = x.shape
        normed = self.attended(x)
        q, k, v = (
            part(source).view(b, t, self.heads, d // self.heads).transpose(1, 2)  # [b, H, T, D/H]
            for part, source in ((self.query, normed), (self.key, x), (self.value, x))
        )
        rate = self.rate if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        x = x + self.drop(read.transpose(1, 2).reshape(b, t, d))
        return x + self.drop(self.feed(self.fed(x)))


class SASRec(Sequential):
    """Score of item i after a history: r_i = h . e_i, h the last block's output at the latest item, e_i its embedding.

    Trained by cross-entropy over all items at every position: the article's one sampled negative per position makes
    scores overconfident and the baseline weak (Klenitskiy and Vasilev, RecSys 2023). Positions count from the latest.
    """

    every: ClassVar[bool] = True
    Params: ClassVar[type[Generative]] = Generative

    def __init__(self, n_items: int, params: Generative, reads: Reads = "ids", features: Tensor | None = None) -> None:
        """Draw the initial values; see `Items` for what is read of an item."""
        super().__init__()
        dim = params.dim
        self.items = Items(n_items, dim, reads, features)
        self.positions = nn.Embedding(params.length, dim)
        for table in (self.items.ids, self.positions):
            if table is not None:
                nn.init.normal_(table.weight, std=dim**-0.5)
        if self.items.ids is not None:
            self.items.ids.weight.data[0] = 0
        self.drop = nn.Dropout(params.dropout)
        self.build(params)

    def build(self, params: Generative) -> None:
        """Draw what follows the embeddings."""
        self.blocks = nn.ModuleList(Block(params.dim, params.heads, params.dropout) for _ in range(params.layers))
        self.last = nn.LayerNorm(params.dim)

    def forward(self, histories: Tensor, table: Tensor) -> Tensor:
        """Return what stands for the history up to each item: int64 [b, T], items [I + 1, D] -> [b, T, D]."""
        t, device = histories.shape[1], histories.device
        x = F.embedding(histories + 1, table, padding_idx=0) * table.shape[1] ** 0.5
        x = self.drop(x + self.positions(torch.arange(t - 1, -1, -1, device=device)))
        causal = torch.ones(t, t, dtype=torch.bool, device=device).tril()
        itself = torch.eye(t, dtype=torch.bool, device=device)  # or the softmax of a padded place would have no term
        mask = causal & ((histories != PAD)[:, None, :] | itself)
        for block in self.blocks:
            x = block(x, mask[:, None])
        return self.last(x)

    def loss(self, windows: Tensor) -> Tensor:
        """Return the mean of -log softmax(r)_target over every item that has one before it."""
        windows = trimmed(windows)
        histories, targets = windows[:, :-1], windows[:, 1:]
        real, table = histories != PAD, self.items()
        return F.cross_entropy(self(histories, table)[real] @ table[1:].T, targets[real])

    def window(self, histories: Tensor) -> Tensor:
        """Return the columns that are read of histories [b, T]."""
        return trimmed(histories)

    def rank(self, histories: Tensor, seen: Tensor, k: int) -> Tensor:
        """Return the K items of highest score, int64 [b, K]."""
        table = self.items()
        scores = self(self.window(histories), table)[:, -1] @ table[1:].T
        values, ids = select(scores.masked_fill(seen, -torch.inf), k)
        return ids.where(values > -torch.inf, -1)
