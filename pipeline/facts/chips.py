"""The verdict at a glance: short claims, each with what was compared and how it came out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.evaluation.evidence import MAIN
from pipeline.facts import verdict
from pipeline.facts.verdict import Compared, Places, Row
from pipeline.facts.words import listed, measure, short, title
from pipeline.models import RELEASED
from pipeline.probe.verdicts import agreed

BETTER, LEVEL, WORSE = "better", "level", "worse"
MODELS = 4
"""recommenders with a chip of their own, the strongest first"""


class Chip(NamedTuple):
    """A claim of a few words."""

    text: str
    outcome: str
    """better, level or worse: its colour"""
    detail: str
    """the same at length, for a tooltip"""


def of_report(released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None) -> list[Chip]:
    """Return the claims on the released features, see verdict.sentences."""
    found = verdict.compared(released, probes, tests)
    return [
        *(chip for name in found.rivals if (chip := in_probes(released, name, found.outcomes[name]))),
        *_under_alignrec(released, found),
        *_beside_models([row for row in found.trained if row["features_b"] in (released, "none")]),
        *_beside_controls(released, found),
    ]


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


def _under_alignrec(released: str, found: Compared) -> Iterable[Chip]:
    """Yield the leads over the same recommender on rivals; those that are level share a chip."""
    level: dict[str, str] = {}
    for name in found.rivals:
        places = {
            place: outcome for place, outcome in found.outcomes[name].items() if place in found.gaps.get(name, {})
        }
        if not places:
            continue
        detail = verdict.rival(released, name, places, found.gaps[name])
        if set(places.values()) == {BETTER}:
            yield Chip(f"beats {title(name)} under AlignRec", BETTER, detail)
        elif WORSE in places.values():
            yield Chip(f"behind {title(name)} under AlignRec", WORSE, detail)
        else:
            level[name] = detail
    if level:
        yield Chip(f"level with {listed([*map(title, level)])} under AlignRec", LEVEL, " ".join(level.values()))


def _beside_models(trained: Sequence[Row]) -> Iterable[Chip]:
    """Yield AlignRec's lead over the strongest other recommenders, and how many more it beats."""
    first = trained[0]["fingerprint"] if trained else ""
    others = [row for row in trained if row["model_b"] != RELEASED and row["fingerprint"] == first]
    others.sort(key=lambda row: -row["mean_b"])
    for row in others[:MODELS]:
        gap, model = short(f"{row['difference']:+.3f}"), title(row["model_b"])
        outcome = {BETTER: BETTER, WORSE: WORSE}.get(agreed([row]), LEVEL)
        text = f"level with {model}" if outcome == LEVEL else f"{gap} {'over' if outcome == BETTER else 'to'} {model}"
        detail = (
            f"AlignRec minus {model}: {row['difference']:+.4f} test {measure(MAIN[0], row['k'])}, p {row['p_holm']:.2g}"
        )
        yield Chip(text, outcome, detail)
    if beaten := [row for row in others[MODELS:] if agreed([row]) == BETTER]:
        names = [title(row["model_b"]) for row in beaten]
        yield Chip(f"and over {len(beaten)} weaker recommender{'s' * (len(beaten) > 1)}", BETTER, listed(names))


def _beside_controls(released: str, found: Compared) -> Iterable[Chip]:
    """Yield how many controls are beaten at every place."""
    outcomes = {name: found.outcomes[name] for name in found.controls}
    if not outcomes:
        return
    beaten = [name for name, places in outcomes.items() if set(places.values()) == {BETTER}]
    sentence = verdict.beside_controls(released, outcomes)
    if len(beaten) == len(outcomes):
        yield Chip(
            f"beats all {len(outcomes)} controls everywhere" if beaten[1:] else "beats its control", BETTER, sentence
        )
    else:
        yield Chip(f"beats {len(beaten)} of {len(outcomes)} controls everywhere", LEVEL, sentence)
