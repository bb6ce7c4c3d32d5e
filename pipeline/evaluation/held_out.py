"""The test set, opened in one place."""

from collections.abc import Sequence
from typing import NamedTuple

from alignrec.pipeline.dataset.split import Part, Split
from alignrec.pipeline.evaluation.protocol import Protocol
from alignrec.pipeline.models.metrics import Evaluation, evaluate_vectors
from alignrec.pipeline.models.scores import Vectors

EVALUATED_PARTS: tuple[Part, Part] = ("valid", "test")


class ModelEvaluation(NamedTuple):
    """Metrics of a trained model on valid and test."""

    valid: Evaluation
    test: Evaluation
    label: dict[str, str]  # protocol and fingerprint


def open_test(
    user: Vectors, item: Vectors, split: Split, protocol: Protocol, ks: Sequence[int]
) -> ModelEvaluation:
    """Evaluate on valid and test; the only function that reads test targets."""
    evaluations = []
    for part in EVALUATED_PARTS:
        seen = protocol.seen_pairs(split, part)
        candidates = protocol.ranked_items(split, part)
        evaluations.append(evaluate_vectors(user, item, split, part, ks, seen, candidates))
    valid, test = evaluations
    return ModelEvaluation(valid, test, protocol.label)
