"""The ids that exist as a tree, and the beam search that never leaves it.

Letters: n items with an id, D codes of an id, V tokens, b histories, w beams, C children of a node at most.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.ops.topk import select


class Trie:
    """Nodes level by level, in the order of their codes: the children of a node stand side by side."""

    def __init__(self, tokens: np.ndarray, items: np.ndarray, device: torch.device) -> None:
        """Build the tree.

        Args:
            tokens: int64 [n, D], each row another one.
            items: int [n], whose ids they are.
        """
        order = np.lexsort(tokens.T[::-1])
        rows = tokens[order]
        changed = np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1)
        begins = np.concatenate([np.ones((1, rows.shape[1]), bool), changed])  # where another prefix begins
        places = [np.zeros(1, np.int64), *(np.flatnonzero(column) for column in begins.T)]
        assert len(places[-1]) == len(rows), "two items have the same id"
        self.tokens = [torch.from_numpy(rows[at, level]).to(device) for level, at in enumerate(places[1:])]
        """level -> int64 [nodes below it]"""
        children = [np.append(np.searchsorted(below, at), len(below)) for at, below in pairwise(places)]
        self.first = [torch.from_numpy(x.astype(np.int64)).to(device) for x in children]
        """level -> int64 [nodes+1], where the children of each begin"""
        self.widest = [int(np.diff(x).max()) for x in children]
        """level -> C"""
        self.items = torch.from_numpy(items[order].astype(np.int64)).to(device)
        paths = np.empty((int(items.max()) + 1, len(places)), np.int64)
        paths[items[order]] = np.cumsum([np.bincount(at, minlength=len(rows)) for at in places], axis=1).T - 1
        self.paths = torch.from_numpy(paths).to(device)
        """item -> its node at each level, int64 [items, D+1]; rows of items without an id hold anything"""

    def __len__(self) -> int:
        """Return D."""
        return len(self.tokens)

    def children(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nodes below others and whether they exist: int64 [...] -> int64 and bool [..., C]."""
        first, end = self.first[level][nodes], self.first[level][nodes + 1]
        below = first[..., None] + torch.arange(self.widest[level], device=nodes.device)
        exists = below < end[..., None]
        return below.where(exists, first[..., None]), exists


def log_probabilities(trie: Trie, logits: Tensor, items: Tensor) -> Tensor:
    """Return log p of items, float [b]: the sum over levels of log softmax over the codes that exist there.

    Those of all items sum to 1, as with a softmax over the catalogue.

    Args:
        logits: of each code given those before, float [b, D, V].
        items: int64 [b], each with an id.
    """
    total = torch.zeros(len(items), device=logits.device)
    for level in range(len(trie)):
        parent, node = trie.paths[items, level], trie.paths[items, level + 1]
        below, exists = trie.children(level, parent)  # [b, C]
        among = logits[:, level].gather(1, trie.tokens[level][below]).masked_fill(~exists, -torch.inf)
        total = total - F.cross_entropy(among, node - trie.first[level][parent], reduction="none")
    return total


@torch.no_grad()
def search(trie: Trie, following: Callable[[Tensor], Tensor], seen: Tensor, width: int, k: int) -> Tensor:
    """Return each history's K items of highest probability among those that the beams reach, best first.

    Probabilities are those of `log_probabilities`. With as many beams as prefixes the ranking is exact.

    Args:
        following: tokens so far, int64 [b, w, depth] -> logits of the next, float [b, w, V].
        seen: bool [b, I], items that are not recommended.
        width: beams kept at each level.

    Returns:
        int64 [b, K], -1 where the beams hold no more items; equal ones in the order of their codes.
    """
    b, device = len(seen), seen.device
    nodes = torch.zeros(b, 1, dtype=torch.int64, device=device)
    total = torch.zeros(b, 1, device=device)
    tokens = torch.zeros(b, 1, 0, dtype=torch.int64, device=device)
    for level in range(len(trie)):
        below, exists = trie.children(level, nodes)  # [b, w, C]
        logits = following(tokens).float().gather(2, trie.tokens[level][below])
        reached = total[..., None] + logits.masked_fill(~exists, -torch.inf).log_softmax(-1)
        last = level == len(trie) - 1
        if last:
            taken = seen.gather(1, trie.items[below].flatten(1)).view_as(exists)
            reached = reached.masked_fill(taken, -torch.inf)
        kept = min(k if last else width, reached[0].numel())
        total, place = select(reached.flatten(1), kept)
        nodes = below.flatten(1).gather(1, place)
        parent = (place // below.shape[2])[..., None].expand(-1, -1, tokens.shape[2])
        tokens = torch.cat([tokens.gather(1, parent), trie.tokens[level][nodes][..., None]], dim=2)
    found = torch.full((b, k), -1, dtype=torch.int64, device=device)
    found[:, : nodes.shape[1]] = trie.items[nodes].where(total > -torch.inf, -1)
    return found
