"""How sequential recommenders are judged, all items ranked after each user's history; and the trivial control.

Letters: U users, I items, K cutoff, b users at a time.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.cutoff import ALL, CUTOFF
from pipeline.evaluation.protocol import Protocol, questions
from pipeline.interactions.split import Part
from pipeline.ops.topk import select
from pipeline.sequential.base import Ranker
from pipeline.sequential.sequences import DIVISION, FEWEST, Sequences

ROWS = 64
"""users at a time, which bounds memory"""


def protocol(rules: Protocol, sequences: Sequences, length: int) -> Protocol:
    """Return leave-one-out's protocol by the benchmark's rules; histories have `length` items at most."""
    users = f"with {FEWEST} items or more; the latest {length} before the target are read"
    return replace(
        rules, rule="strict", split=DIVISION, questions=questions(sequences.split()), candidates=ALL, users=users,
        selection=f"first epoch of best valid ndcg@{CUTOFF}",
    )  # fmt: skip


@torch.no_grad()
def rankings(ranker: Ranker, sequences: Sequences, part: Part, length: int, k: int, device: torch.device) -> np.ndarray:
    """Return what is recommended to each user before the target of a part, int32 [U, K], best first.

    Args:
        ranker: in evaluation mode.
        sequences: at test a history ends with the item of valid.
        length: items of a history at most.
    """
    ends, tops = sequences.last(part), []
    for at in range(0, len(ends), ROWS):
        rows = np.arange(at, min(at + ROWS, len(ends)))
        histories = torch.from_numpy(sequences.windows(rows, ends[rows], length)).to(device)
        seen = torch.from_numpy(sequences.seen(rows, part)).to(device)
        tops.append(ranker.rank(histories, seen, k).cpu().numpy().astype(np.int32))
    return np.concatenate(tops)


class Popularity:
    """Ranks items by their train interactions, equal ones by item_id."""

    def __init__(self, sequences: Sequences) -> None:
        """Count train interactions."""
        split = sequences.split()
        self.counts = torch.from_numpy(np.bincount(split.train.items, minlength=sequences.n_items)).float()

    def rank(self, histories: Tensor, seen: Tensor, k: int) -> Tensor:
        """Return the K most popular items that the user has not, int64 [b, K]."""
        scores = self.counts.to(seen.device).expand(len(seen), -1).masked_fill(seen, -torch.inf)
        values, ids = select(scores, k)
        return ids.where(values > -torch.inf, -1)
