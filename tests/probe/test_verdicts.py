"""Verdicts: a feature set must win raw and processed, and both figures are reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alignrec.pipeline.probe.verdicts import paired_verdicts

KS = [10, 20]
USERS = 400


def answers(rates: dict[str, float]) -> dict[str, dict[str, np.ndarray]]:
    """Return paired hits [USERS, 2] at a rate per set: users hit at one rate are hit at every higher one."""
    rank = np.random.default_rng(0).permutation(USERS) / USERS
    return {"item_cf": {name: np.stack([rank < rate, rank < rate], axis=1) * 1.0 for name, rate in rates.items()}}


def judged(raw: dict[str, float], processed: dict[str, float]) -> list[dict[str, Any]]:
    return paired_verdicts(answers(raw), answers(processed), [("a", name) for name in raw if name != "a"], KS, seed=0)


@pytest.mark.parametrize(
    ("raw", "processed", "expected"),
    [
        ((0.6, 0.3), (0.5, 0.3), "better"),
        ((0.3, 0.6), (0.3, 0.5), "worse"),
        ((0.6, 0.3), (0.3, 0.3), "undecided"),
        ((0.3, 0.3), (0.6, 0.3), "undecided"),
        ((0.6, 0.3), (0.3, 0.6), "undecided"),
    ],
)
def test_a_set_is_better_only_raw_and_processed(
    raw: tuple[float, float], processed: tuple[float, float], expected: str
) -> None:
    rows = judged(dict(zip("ab", raw, strict=True)), dict(zip("ab", processed, strict=True)))
    assert [(r["measure"], r["a"], r["b"], r["verdict"]) for r in rows] == [
        ("hit@10", "a", "b", expected),
        ("hit@20", "a", "b", expected),
    ]
    assert rows[0]["raw"]["difference"] == pytest.approx(raw[0] - raw[1])
    assert rows[0]["processed"]["difference"] == pytest.approx(processed[0] - processed[1])


def test_all_tests_are_corrected_together() -> None:
    few = judged({"a": 0.3, "b": 0.287}, {"a": 0.3, "b": 0.287})
    many = judged({"a": 0.3} | {f"b{i}": 0.287 for i in range(9)}, {"a": 0.3} | {f"b{i}": 0.287 for i in range(9)})
    assert many[0]["raw"]["p_holm"] > few[0]["raw"]["p_holm"]
