"""The verdict of a comparison in words: a sentence a pair of feature sets, which claims what every test says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.probe.registry import PROBES
from pipeline.probe.verdicts import LEVEL, agreed
from pipeline.report.markdown import listed

Places = dict[str, str]
"""probe or model -> better, worse or undecided"""
RULE = (
    f"Better and worse are said where all tests agree, p below {LEVEL} after Holm's correction: of probes, raw and "
    "processed, at each cutoff."
)


def sentences(comparison: Mapping[str, Any]) -> list[str]:
    """Return a sentence a pair of sets, and the rule; nothing where there are no two sets.

    Args:
        comparison: see command.compare.
    """
    pairs = dict.fromkeys((pair["a"], pair["b"]) for pair in comparison["pairs"])
    said = []
    for a, b in pairs:
        clauses = _clauses(_probed(_of(comparison["verdicts"], a, b)), "in")
        if "training" in comparison:
            trained = comparison["training"]
            seeds = f"trained over {trained['seeds']} seed{'s' * (trained['seeds'] > 1)}, "
            protocols = [trained, *trained.get("also", [])]
            clauses += [seeds + "; ".join(_clauses(_trained(_of(one["paired"], a, b) for one in protocols), "with"))]
        said.append(f"{a} against {b}: {'; '.join(clauses) or 'no probe was asked of both'}.")
    return [*said, RULE] if said else []


def _of(rows: Iterable[Mapping[str, Any]], a: str, b: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["a"], row["b"]) == (a, b)]


def _probed(verdicts: Iterable[Mapping[str, Any]]) -> Places:
    """Return the verdict of each probe that is the same at all its cutoffs; else it is undecided."""
    by_probe: dict[str, set[str]] = {}
    for row in verdicts:
        by_probe.setdefault(PROBES[row["probe"]].name, set()).add(row["verdict"])
    return {probe: found.pop() if len(found) == 1 else "undecided" for probe, found in by_probe.items()}


def _trained(protocols: Iterable[list[Mapping[str, Any]]]) -> Places:
    """Return the verdict under each model, on the tests of all protocols."""
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for tests in protocols:
        for test in tests:
            by_model.setdefault(test["measure"].split()[0], []).append(test)
    return {model: agreed(tests) for model, tests in by_model.items()}


def _clauses(places: Places, where: str) -> list[str]:
    grouped = {verdict: [p for p, v in places.items() if v == verdict] for verdict in ("better", "worse", "undecided")}
    return [f"{verdict} {where} {listed(names)}" for verdict, names in grouped.items() if names]
