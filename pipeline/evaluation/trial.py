"""The one place that opens the test split."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.evaluation.metrics import Evaluation, evaluate
from pipeline.evaluation.protocol import Protocol
from pipeline.interactions.split import Split
from pipeline.ops.topk import Vectors


class Result(NamedTuple):
    """A trained model's metrics on valid and test."""

    valid: Evaluation
    test: Evaluation
    label: dict[str, str]  # protocol and fingerprint


def open_test(user: Vectors, item: Vectors, split: Split, protocol: Protocol, ks: Sequence[int]) -> Result:
    """Rank the protocol's candidates for every user with a target in valid, and in test.

    Args:
        user, item: float [U, D] and [I, D] of the best valid epoch; score = dot product.

    Raises:
        UserError: a cutoff is larger than the catalogue, or than the candidates.
    """
    valid = evaluate(user, item, split, "valid", ks, protocol.seen(split, "valid"), protocol.ranked(split, "valid"))
    test = evaluate(user, item, split, "test", ks, protocol.seen(split, "test"), protocol.ranked(split, "test"))
    return Result(valid, test, protocol.label)
