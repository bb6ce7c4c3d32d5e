"""Verdicts on pairs of feature sets: the better one must win raw and processed, in paired tests corrected by Holm.

Letters: G groups (users or items), n cases, D draws, K cutoff.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.evaluation.statistics import LEVEL, corrected_tests
from alignrec.pipeline.probe.registry import PROBES

CUTOFFS = (10, 20)
TESTED = ("difference", "low", "high", "p_holm")  # fields of a test that are recorded
Answers = Mapping[str, Mapping[str, np.ndarray]]  # probe -> set -> hits [G, len(ks)], or figures of cases [n]


def paired_verdicts(
    raw: Answers, processed: Answers, pairs: Iterable[tuple[str, str]], ks: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Return a row per pair, probe and measure: tests of a - b, raw and processed, and the verdict on a.

    All tests are corrected together; pairs without answers to a probe are left out.
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
    """Return `better` or `worse` if all tests of a - b agree and are significant, else `undecided`."""
    signs = {int(np.sign(test["difference"])) if test["p_holm"] < LEVEL else 0 for test in tests}
    return {1: "better", -1: "worse"}.get(signs.pop(), "undecided") if len(signs) == 1 else "undecided"


def tested_measures(probe: str, answers: np.ndarray, cutoffs: Sequence[int], ks: Sequence[int]) -> dict[str, int]:
    """Return measure -> its column in the answers."""
    entry = PROBES[probe]
    if entry.drawn or answers.ndim == 1:
        return {entry.figure: 0}
    return {f"{entry.measure}@{k}": list(ks).index(k) for k in cutoffs}


def figures_of_cases(probe: str, answers: np.ndarray, column: int) -> np.ndarray:
    """Return float64 [n], or [n, D] of a probe with draws."""
    return answers if PROBES[probe].drawn or answers.ndim == 1 else answers[:, column]
