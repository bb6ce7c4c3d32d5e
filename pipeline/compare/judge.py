"""Probes of several feature sets, and paired tests of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.compare.feature_set import FeatureSet
from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.statistics import corrected
from pipeline.features import control
from pipeline.ops import whitening
from pipeline.probe import asking, questions, verdicts
from pipeline.probe.base import Task
from pipeline.probe.params import Probe
from pipeline.probe.registry import PROBES
from pipeline.seeds import seed_for


def controls_of(features: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return random and shuffled features of the shape of `features`, float32 [I, F], and constant ones, [I, 1]."""
    items, width = features.shape
    return {
        "random": control.random(items, width, seed_for(seed, "random")),
        "shuffled": features[control.shuffled(items, seed_for(seed, "shuffled"))],
        "constant": control.constant(items, 1),
    }


def judge(
    sets: Sequence[FeatureSet],
    probes: Mapping[str, questions.Questions | Task | str],
    ks: Sequence[int],
    seed: int,
    withheld: Mapping[str, Mapping[str, str]] | None = None,
    width: int = Probe().width,
) -> dict[str, Any]:
    """Return probes of the sets and of their controls, raw and processed; tests and verdicts of every two sets.

    Args:
        sets: at least one.
        probes: see asking.ask.
        ks: cutoffs.
        seed: of controls and folds.
        withheld: see asking.withheld.
        width: of processed sets, at most.
    """
    named = {g.name: g.vectors for g in sets}
    narrowest = min(named.values(), key=lambda vectors: vectors.shape[1])  # controls score as chance at any width
    controls_added = {k: v for k, v in controls_of(narrowest, seed).items() if k not in named}
    answers = asking.answers(probes, (named | controls_added).items(), ks, seed, withheld)
    narrowed = ((name, whitening.processed(x, width)) for name, x in (named | controls_added).items())
    processed = asking.answers(probes, narrowed, ks, seed, withheld)
    comparisons: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    at = list(ks).index(headline(ks))
    for probe, of_probe in answers.items():
        for a, b in combinations(named, 2):
            if a in of_probe and b in of_probe:
                columns = [v if v.ndim == 1 else v[:, at] for v in (of_probe[a], of_probe[b])]
                figure = PROBES[probe].measure + ("" if of_probe[a].ndim == 1 else f"@{ks[at]}")
                comparisons.append((f"{probe} {figure}", a, b, columns[0], columns[1]))
    return {
        "probes": asking.summaries(probes, answers, ks, withheld),
        "processed": asking.processed(probes, processed, ks, width),
        "paired": corrected(comparisons, seed),
        "verdicts": verdicts.verdicts(answers, processed, combinations(named, 2), ks, seed),
    }
