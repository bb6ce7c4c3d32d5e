"""Probe several feature sets along with controls, and test their differences."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.evaluation.statistics import corrected_tests
from alignrec.pipeline.linalg.projections import random_vectors, shuffled_order
from alignrec.pipeline.probe import judge
from alignrec.pipeline.probe.registry import Data
from alignrec.pipeline.runtime.seeds import seed_for


def probe_sets(
    sets: Mapping[str, np.ndarray], data: Data, ks: Sequence[int], seed: int, width: int
) -> dict[str, Any]:
    """Return probes of sets and controls, raw and processed to `width`, with tests and verdicts for each pair."""
    narrowest = min(
        sets.values(), key=lambda vectors: vectors.shape[1]
    )  # controls score at chance level at any width
    items, columns = narrowest.shape
    added = {
        "random": random_vectors(items, columns, seed_for(seed, "random")),
        "shuffled": narrowest[shuffled_order(items, seed_for(seed, "shuffled"))],
        "constant": np.ones((items, 1), np.float32),
    }
    everything = [
        *sets.items(),
        *((name, vectors) for name, vectors in added.items() if name not in sets),
    ]
    pairs = [*combinations(sets, 2)]
    judged, raw = judge.judge_sets(data, everything, ks, pairs, seed, width)
    comparisons = []
    for probe, answers in raw.items():
        for a, b in (pair for pair in pairs if {*pair} <= answers.keys()):
            x, y = (
                judge.figures_of_cases(probe, answers[name], [headline_cutoff(ks)], ks)
                for name in (a, b)
            )
            comparisons += [(f"{probe} {measure}", a, b, x[measure], y[measure]) for measure in x]
    verdicts = judged.pop("verdicts")
    return judged | {"paired": corrected_tests(comparisons, seed), "verdicts": verdicts}
