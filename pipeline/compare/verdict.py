"""The verdict of a comparison in words: a sentence a pair of feature sets, which claims what every test says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.evaluation.evidence import seeds_of
from pipeline.probe.verdicts import LEVEL, agreed
from pipeline.report import verdict

RULE = (
    f"Decided where all tests agree, p below {LEVEL} after Holm's correction: of probes, raw and processed, at each "
    "cutoff."
)


def sentences(comparison: Mapping[str, Any]) -> list[str]:
    """Return a sentence a pair of sets, and the rule; nothing where there are no two sets.

    Args:
        comparison: see command.compare.
    """
    said, training = [], comparison.get("training")
    doubted = {doubt["features"] for doubt in comparison.get("order", [])}
    for a, b in dict.fromkeys((pair["a"], pair["b"]) for pair in comparison["pairs"]):
        places = verdict.probed(_of(comparison["verdicts"], a, b))
        if training:
            places |= _trained(_of(one["paired"], a, b) for one in (training, *training.get("also", [])))
        if wrong := [name for name in (a, b) if name in doubted]:
            said.append(f"No verdict on {a} and {b}: the order of the rows of {' and '.join(wrong)} looks wrong.")
            continue
        said.append(verdict.rival(a, b, places, {}) if places else f"No probe was asked of both {a} and {b}.")
    trained = f" Models were trained over {seeds_of([training['seeds']])}." if training else ""
    return [*said, RULE + trained] if said else []


def _of(rows: Iterable[Mapping[str, Any]], a: str, b: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["a"], row["b"]) == (a, b)]


def _trained(protocols: Iterable[list[Mapping[str, Any]]]) -> dict[str, str]:
    """Return the outcome under each model, on the tests of all protocols."""
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for tests in protocols:
        for test in tests:
            by_model.setdefault(f"under {test['measure'].split()[0]}", []).append(test)
    return {model: agreed(tests) for model, tests in by_model.items()}
