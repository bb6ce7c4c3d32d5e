"""The one place that opens the test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.evaluation.metrics import Evaluation, evaluate
from pipeline.evaluation.protocol import Protocol
from pipeline.interactions.split import Split
from pipeline.ops.topk import Vectors


class Result(NamedTuple):
    """What a trained model is worth, and under which rules."""

    valid: Evaluation
    test: Evaluation
    label: dict[str, str]
    """protocol and fingerprint, as every record carries them"""


def open_test(user: Vectors, item: Vectors, split: Split, protocol: Protocol, ks: Sequence[int]) -> Result:
    """Rank all items for every user with a target in valid, and in test.

    Args:
        user: float [U, D], as at the best valid epoch.
        item: float [I, D]; score = dot product.
        split: what was trained on and what is asked for.
        protocol: says which items are never recommended.
        ks: cutoffs.

    Raises:
        UserError: a cutoff is larger than the catalogue.
    """
    valid = evaluate(user, item, split, "valid", ks, protocol.masked(split, "valid"))
    test = evaluate(user, item, split, "test", ks, protocol.masked(split, "test"))
    return Result(valid, test, protocol.label)
