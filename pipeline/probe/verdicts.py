"""Which of two feature sets is better: it must win raw and processed, in paired tests corrected for all comparisons.

Processed: the best of three forms on valid (forms.py), the same choice for every set.
G groups (users or items) or cases of a probe, K cutoff.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.evaluation.statistics import LEVEL, corrected_tests
from alignrec.pipeline.probe.registry import PROBES

CUTOFFS = (10, 20)
TESTED = ("difference", "low", "high", "p_holm")  # what is kept of each test
Answers = Mapping[str, Mapping[str, np.ndarray]]  # probe -> set -> hits [G, len(ks)], or figures of cases [n]


def paired_verdicts(
    raw: Answers, processed: Answers, pairs: Iterable[tuple[str, str]], ks: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Return the verdict on each pair of feature sets, for each probe and K of CUTOFFS.

    All tests, raw and processed, are corrected together; pairs that a probe has no answers of are left out. A row has
    probe, measure, a, b, `raw` and `processed` (a - b with its 95 % interval, and p after Holm), and verdict: a is
    better, worse, or it is undecided.
    """
    rows, tests = list[dict[str, Any]](), []
    cutoffs = [k for k in CUTOFFS if k in ks] or [headline_cutoff(ks)]
    for a, b in pairs:
        for probe in (name for name, sets in raw.items() if {a, b} <= sets.keys()):
            for measure, column in tested_measures(probe, raw[probe][a], cutoffs, ks).items():
                rows.append({"probe": probe, "measure": measure, "a": a, "b": b})
                for answers in (raw[probe], processed[probe]):
                    x, y = (figures_of_cases(probe, answers[name], column) for name in (a, b))
                    tests.append((measure, a, b, x, y))
    results = corrected_tests(tests, seed)
    for row, *both in zip(rows, results[::2], results[1::2], strict=True):
        for form, test in zip(("raw", "processed"), both, strict=True):
            row[form] = {key: round(test[key], 6) for key in TESTED}
        row["verdict"] = agreed_verdict(both)
    return rows


def agreed_verdict(tests: Sequence[Mapping[str, Any]]) -> str:
    """Return what all tests of a - b say: a is better, worse, or it is undecided; see statistics.corrected."""
    signs = {int(np.sign(test["difference"])) if test["p_holm"] < LEVEL else 0 for test in tests}
    return {1: "better", -1: "worse"}.get(signs.pop(), "undecided") if len(signs) == 1 else "undecided"


def tested_measures(probe: str, answers: np.ndarray, cutoffs: Sequence[int], ks: Sequence[int]) -> dict[str, int]:
    """Return the measures of a probe that are tested -> their columns in the answers; that of a task has one."""
    entry = PROBES[probe]
    if entry.drawn or answers.ndim == 1:
        return {entry.figure: 0}
    return {f"{entry.measure}@{k}": list(ks).index(k) for k in cutoffs}


def figures_of_cases(probe: str, answers: np.ndarray, column: int) -> np.ndarray:
    """Return the figure of each case, float64 [n], or [n, D] in draws, of a column that `tested_measures` names."""
    return answers if PROBES[probe].drawn or answers.ndim == 1 else answers[:, column]
