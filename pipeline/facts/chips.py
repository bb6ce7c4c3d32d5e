"""The verdict at a glance: short claims, each with what was compared and how it came out."""

from typing import NamedTuple

from pipeline.facts import verdict
from pipeline.facts.verdict import Places
from pipeline.facts.words import title

BETTER, LEVEL, WORSE = "better", "level", "worse"


class Chip(NamedTuple):
    """A claim of a few words."""

    text: str
    outcome: str
    """better, level or worse: its colour"""
    detail: str
    """the same at length, for a tooltip"""


def in_probes(a: str, b: str, places: Places) -> Chip | None:
    """Return in how many probes a beats b; None where none was asked."""
    outcomes = {place: outcome for place, outcome in places.items() if place.startswith("in ")}
    if not outcomes:
        return None
    won, lost = ([p for p, o in outcomes.items() if o == word] for word in (BETTER, WORSE))
    asked = f"{len(outcomes)} probe{'s' * (len(outcomes) > 1)}"
    said = [
        f"{verb} {title(b)} in {len(where)} of {asked}" for verb, where in (("beats", won), ("behind", lost)) if where
    ]
    detail = verdict.rival(a, b, outcomes, {})
    if not said:
        return Chip(f"level with {title(b)} in {asked}", LEVEL, detail)
    return Chip("; ".join(said), LEVEL if won and lost else BETTER if won else WORSE, detail)
