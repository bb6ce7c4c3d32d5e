"""Probe several feature sets along with controls, and test their differences."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from alignrec.pipeline.evaluation.probe.judge import Answers, figures_of_cases, judge_sets
from alignrec.pipeline.evaluation.probe.registry import Data
from alignrec.pipeline.evaluation.statistics import corrected_tests
from alignrec.pipeline.linalg.projections import random_vectors, shuffled_order
from alignrec.pipeline.models.cutoff import headline_cutoff
from alignrec.pipeline.runtime.seeds import seed_for


def judge_with_controls(
    sets: Mapping[str, np.ndarray], data: Data, ks: Sequence[int], seed: int, width: int
) -> dict[str, Any]:
    """Return probes of sets and controls, raw and processed to `width`, and tests of each pair."""
    pairs = list(combinations(sets, 2))
    every_set = make_controls(sets, seed) | dict(sets)
    names = dict.fromkeys([*sets, *every_set])  # controls come last

    vectors = [(name, every_set[name]) for name in names]
    judged, raw = judge_sets(data, vectors, ks, pairs, seed, width)
    verdicts = judged.pop("verdicts")
    return judged | {"paired": compare_pairs(raw, pairs, ks, seed), "verdicts": verdicts}


def make_controls(sets: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    # controls score at chance level at any width
    narrowest = min(sets.values(), key=lambda vectors: vectors.shape[1])
    n_items, width = narrowest.shape
    return {
        "random": random_vectors(n_items, width, seed_for(seed, "random")),
        "shuffled": narrowest[shuffled_order(n_items, seed_for(seed, "shuffled"))],
        "constant": np.ones((n_items, 1), np.float32),
    }


def compare_pairs(
    answers: Answers, pairs: Sequence[tuple[str, str]], ks: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Test the headline figures of pairs, raw; pairs without answers to a probe are left out."""
    cutoffs = [headline_cutoff(ks)]
    comparisons = []
    for probe, by_set in answers.items():
        for a, b in pairs:
            if not by_set.keys() >= {a, b}:
                continue
            figures_a = figures_of_cases(probe, by_set[a], cutoffs, ks)
            figures_b = figures_of_cases(probe, by_set[b], cutoffs, ks)
            for measure, figures in figures_a.items():
                comparisons.append((f"{probe} {measure}", a, b, figures, figures_b[measure]))
    return corrected_tests(comparisons, seed)
