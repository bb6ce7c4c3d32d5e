"""The one place that opens the test split."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.metrics import Evaluation, evaluate, judge
from pipeline.evaluation.protocol import Protocol
from pipeline.interactions.split import Part, Split
from pipeline.ops.topk import Vectors


class Result(NamedTuple):
    """A trained model's metrics on valid and test, and the protocol."""

    valid: Evaluation
    test: Evaluation
    label: dict[str, str]
    """protocol and fingerprint, columns of every record"""


def open_test(user: Vectors, item: Vectors, split: Split, protocol: Protocol, ks: Sequence[int]) -> Result:
    """Rank the protocol's candidates for every user with a target in valid, and in test.

    Args:
        user: float [U, D], as at the best valid epoch.
        item: float [I, D]; score = dot product.

    Raises:
        UserError: a cutoff is larger than the catalogue, or than the candidates.
    """
    valid = evaluate(user, item, split, "valid", ks, protocol.seen(split, "valid"), protocol.ranked(split, "valid"))
    test = evaluate(user, item, split, "test", ks, protocol.seen(split, "test"), protocol.ranked(split, "test"))
    return Result(valid, test, protocol.label)


def open_test_ranked(
    ranked: Callable[[Part], np.ndarray], split: Split, protocol: Protocol, ks: Sequence[int]
) -> Result:
    """Judge the rankings of a model that ranks by itself, as one that writes items does.

    Args:
        ranked: part -> int32 [N, max K], best first, of all users with a target there, ascending; masked already.
        protocol: which the rankings keep to.
    """
    valid = judge(ranked("valid"), np.unique(split.valid.users), split.valid, split.n_items, ks)
    test = judge(ranked("test"), np.unique(split.test.users), split.test, split.n_items, ks)
    return Result(valid, test, protocol.label)
