"""Probes of several feature sets, and paired tests of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from pipeline import categories, probes
from pipeline.compare import geometry
from pipeline.compare.given import Given

CUTOFF = 20
"""paired tests are made at this cutoff"""
NEIGHBOURS = 10


class Paired(NamedTuple):
    """One comparison of two feature sets on the same users or items."""

    measure: str
    a: str
    b: str
    n: int
    """pairs: users, or items"""
    mean_a: float
    mean_b: float
    difference: float
    """a - b"""
    low: float
    """95 % confidence interval of the difference"""
    high: float
    p: float
    """of Student's paired t test, two-sided"""


def paired(measure: str, a: str, b: str, x: np.ndarray, y: np.ndarray) -> Paired:
    """Return the paired comparison of two figures of the same n users or items, float64 [n] each."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    difference = x - y
    mean, n = float(difference.mean()), len(difference)
    error = float(difference.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    half = float(stats.t.ppf(0.975, n - 1)) * error if n > 1 else 0.0
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0)
    return Paired(measure, a, b, n, float(x.mean()), float(y.mean()), mean, mean - half, mean + half, p)


def controls(like: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return random and shuffled features of the same shape as `like`, float32 [I, F], and constant ones, [I, 1]."""
    rng = np.random.default_rng(seed)
    return {
        "random": rng.standard_normal(like.shape, np.float32),
        "shuffled": rng.permutation(like),
        "constant": np.ones((len(like), 1), np.float32),
    }


def judge(
    sets: Sequence[Given],
    asked: Mapping[str, probes.Questions | str],
    classes: categories.Labels | None,
    ks: Sequence[int],
    seed: int,
) -> dict[str, Any]:
    """Return probes of the sets and of controls beside them, and paired tests of every two sets.

    Args:
        sets: at least one.
        asked: see probes.questions.
        classes: see categories.labels.
        ks: cutoffs.
        seed: of controls and folds.
    """
    named = {g.name: g.vectors for g in sets}
    beside = {k: v for k, v in controls(sets[0].vectors, seed).items() if k not in named}
    found = probes.answers(asked, classes, (named | beside).items(), ks, seed)
    tests = []
    at = list(ks).index(CUTOFF) if CUTOFF in ks else len(ks) - 1
    for probe, answers in found.items():
        for a, b in combinations(named, 2):
            if a in answers and b in answers:
                columns = [v if v.ndim == 1 else v[:, at] for v in (answers[a], answers[b])]
                figure = "accuracy" if probe == "categories" else f"{probes.PROBES[probe][1]}@{ks[at]}"
                tests.append(paired(f"{probe} {figure}", a, b, *columns)._asdict())
    return {"probes": probes.summaries(asked, classes, found, ks), "paired": tests}


def compared(sets: Sequence[Given], changed: int) -> dict[str, Any]:
    """Return the shape of each set, and of every two how alike they are and which items changed most.

    Args:
        sets: at least one.
        changed: items named per pair.
    """
    k = min(NEIGHBOURS, len(sets[0].vectors) - 1)
    near = {g.name: geometry.neighbours(g.vectors, k) for g in sets}
    pairs = []
    for a, b in combinations(sets, 2):
        share = geometry.overlap(near[a.name], near[b.name])
        worst = np.argsort(share, kind="stable")[:changed]
        pairs.append(
            {
                "a": a.name,
                "b": b.name,
                "neighbours": k,
                "overlap": round(float(share.mean()), 6),
                "cka": round(geometry.linear_cka(a.vectors, b.vectors), 6),
                "most_changed": [{"item_id": int(i), "overlap": round(float(share[i]), 6)} for i in worst],
            }
        )
    shapes = {
        g.name: {k: round(v, 6) if isinstance(v, float) else v for k, v in geometry.shape(g.vectors)._asdict().items()}
        for g in sets
    }
    return {"sets": shapes, "pairs": pairs}
