"""Probe several feature sets, and test their differences."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from alignrec.pipeline.compare.feature_set import FeatureSet
from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.evaluation.statistics import corrected_tests
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.interactions.profiles import Profiles
from alignrec.pipeline.ops.linalg import random_vectors, shuffled_order
from alignrec.pipeline.probe import forms, questions, verdicts
from alignrec.pipeline.probe.judge import answer_sets, summarise_answers, summarise_processed
from alignrec.pipeline.probe.params import Probe
from alignrec.pipeline.probe.registry import Task


def controls_of(features: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    items, width = features.shape
    return {
        "random": random_vectors(items, width, seed_for(seed, "random")),
        "shuffled": features[shuffled_order(items, seed_for(seed, "shuffled"))],
        "constant": np.ones((items, 1), np.float32),
    }


def judge_sets(
    sets: Sequence[FeatureSet],
    probes: Mapping[str, questions.Questions | Task | str],
    ks: Sequence[int],
    seed: int,
    width: int = Probe().width,  # upper bound for processed sets
    valid: Profiles | None = None,  # chooses the processing; None: whiten all sets
) -> dict[str, Any]:
    """Return probes of sets and controls, raw and processed, with paired tests and verdicts for each pair."""
    named = {g.name: g.vectors for g in sets}
    narrowest = min(named.values(), key=lambda vectors: vectors.shape[1])  # controls score at chance level at any width
    controls_added = {k: v for k, v in controls_of(narrowest, seed).items() if k not in named}
    everything, processing = (named | controls_added).items(), forms.Processing(valid, width)
    answers, processed = answer_sets(probes, everything, ks, processing=processing)
    comparisons = []
    for probe, of_probe in answers.items():
        for a, b in combinations(named, 2):
            if a in of_probe and b in of_probe:
                ((figure, at),) = verdicts.tested_measures(probe, of_probe[a], [headline_cutoff(ks)], ks).items()
                x, y = (verdicts.figures_of_cases(probe, of_probe[name], at) for name in (a, b))
                comparisons.append((f"{probe} {figure}", a, b, x, y))
    return {
        "probes": summarise_answers(probes, answers, ks),
        "processed": summarise_processed(probes, processed, ks, processing),
        "paired": corrected_tests(comparisons, seed),
        "verdicts": verdicts.paired_verdicts(answers, processed, combinations(named, 2), ks, seed),
    }
