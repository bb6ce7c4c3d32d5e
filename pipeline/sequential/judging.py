"""How sequential recommenders are judged: all items ranked after each user's history. U users, I items, K cutoff."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from pipeline.evaluation.cutoff import ALL, CUTOFF
from pipeline.evaluation.protocol import Protocol, questions
from pipeline.interactions.split import Part
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
