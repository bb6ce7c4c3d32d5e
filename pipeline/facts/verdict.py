"""What the tests say of the released features, in words: a report opens with it.

Two sets are compared at several places: in each probe, and under the recommender of the release. A place has the
outcome better, worse or undecided; pipeline/probe/verdicts.py and the paired tests of the benchmark decide it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.evaluation.evidence import MAIN, seeds_of
from pipeline.facts.probes import Probed, read
from pipeline.facts.words import CONTROLS, listed, measure, short, title
from pipeline.models import RELEASED
from pipeline.probe.registry import PROBES
from pipeline.probe.verdicts import LEVEL, agreed

NOT_TRAINED = ("-untrained", "-official")
"""end the names of an encoder's controls: the same network before it is trained here"""
Row = Mapping[str, Any]
Places = Mapping[str, str]
"""place -> outcome"""


def sentences(released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None) -> list[str]:
    """Return the verdict on a set by probes.json and table TESTS: beside each other set, its controls, other models."""
    found = compared(released, probes, tests)
    named = {name: found.outcomes[name] for name in found.controls}
    return [
        *(rival(released, name, found.outcomes[name], found.gaps.get(name, {})) for name in found.rivals),
        *([beside_controls(released, named)] if named else []),
        *_beside_models(released, found.trained, found.several),
    ]


def advice(probes: Mapping[str, Any] | None) -> str:
    """Return which set to use in place of the released one; nothing where none is better.

    It is that which most probes decide for, and none against. A probe that flatters sets that learned from interactions
    says nothing for those.
    """
    released = next((row["a"] for row in (probes or {}).get("verdicts", [])), "")
    found, figures, learned = compared(released, probes, None), read(probes), (probes or {}).get("learned", ())
    winner, most = "", list[str]()
    for rival in found.rivals:
        asked = [key for key, probe in PROBES.items() if not (probe.leak and rival in learned)]
        told = {key: found.outcomes[rival].get(f"in {PROBES[key].name}") for key in asked}
        won = [key for key, outcome in told.items() if outcome == "worse"]
        if "better" not in told.values() and len(won) > len(most):
            winner, most = rival, won
    if not winner:
        return ""
    places = [f"{PROBES[key].name}{_beside(figures.get(key), winner, released)}" for key in most]
    return f"Use {winner}, not {released}: it is better in {listed(places)}, and worse in no probe."


def _beside(probed: Probed | None, a: str, b: str) -> str:
    """Return the headline figures of two sets as they are, in brackets; empty where they are not known."""
    if probed is None or not {a, b} <= probed.forms.get("raw", {}).keys():
        return ""
    of = probed.of("raw", probed.figure)
    return short(f" ({of[a]:.3f} to {of[b]:.3f} {probed.figure})")


@dataclass(frozen=True)
class Compared:
    """What was decided of a feature set against others."""

    outcomes: dict[str, dict[str, str]]
    """other set -> place -> outcome"""
    gaps: dict[str, dict[str, str]]
    """other set -> place of a recommender -> a - b, in words"""
    trained: list[Row]
    """tests of AlignRec on the set against any other run"""
    several: bool
    """whether there are several protocols"""
    rivals: list[str]
    controls: list[str]


def compared(released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None) -> Compared:
    """Return what was decided of a feature set, see `sentences`."""
    rows = [] if tests is None else _recalls(tests)
    outcomes: dict[str, dict[str, str]] = {}
    judged = [row for row in (probes or {}).get("verdicts", []) if row["a"] == released]
    for other in dict.fromkeys(row["b"] for row in judged):
        outcomes[other] = probed([row for row in judged if row["b"] == other])
    several = len({row["fingerprint"] for row in rows}) > 1
    trained = [row for row in rows if row["features_a"] == released]
    gaps: dict[str, dict[str, str]] = {}
    for row in trained:
        if row["model_b"] == RELEASED and row["features_b"] != released:
            place = "under AlignRec" + (f" by {row['protocol']}" if several else "")
            outcomes.setdefault(row["features_b"], {})[place] = agreed([row])
            gaps.setdefault(row["features_b"], {})[place] = _gap([row])
    own = [name for name in outcomes if name.startswith(f"{released.removesuffix('-raw')}-")]
    controls = [name for name in outcomes if name in CONTROLS or (name in own and name.endswith(NOT_TRAINED))]
    rivals = [name for name in outcomes if name not in own and name not in controls]
    return Compared(outcomes, gaps, trained, several, rivals, controls)


def headline(dataset: str, kind: str, released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None) -> str:
    """Return the verdict in one sentence; empty where nothing was compared.

    Args:
        dataset: name of the data set.
        kind: of its source; the users of `sample` are synthetic.
        released: the feature set that is judged.
        probes: probes.json.
        tests: table TESTS.
    """
    found = compared(released, probes, tests)
    features, models = list(_on_features(found)), list(_on_models(found.trained))
    clauses = []
    if features:
        clauses.append(f"{title(released)} features {listed(features)}")
    if models:
        clauses.append(f"AlignRec on {'them' if features else title(released)} {listed(models)}")
    where = f"On {dataset}{' (synthetic users)' if kind == 'sample' else ''}"
    return f"{where}, {'; '.join(clauses)}.{_caution(found)}" if clauses else ""


def _on_features(found: Compared) -> Iterator[str]:
    """Yield what the probes decide on other sets, masked ones apart: those that are beaten, ahead, both, or level."""
    groups: dict[str, list[str]] = {}
    counts: dict[str, set[int]] = {}
    asked = 0
    for rival in found.rivals:
        told = [outcome for place, outcome in found.outcomes[rival].items() if place.startswith("in ")]
        if not told or rival.endswith("-masked"):
            continue
        asked, won, lost = max(asked, len(told)), told.count("better"), told.count("worse")
        group = "level" if not won and not lost else "mixed" if won and lost else "better" if won else "worse"
        groups.setdefault(group, []).append(title(rival))
        counts.setdefault(group, set()).add(won or lost)
    for group, verb in (("better", "beat"), ("worse", "are behind"), ("mixed", "beat and are behind")):
        if names := groups.get(group):
            least, most = min(counts[group]), max(counts[group])
            span = f"{least}" if least == most else f"{least} to {most}"
            yield f"{verb} {listed(names)} in {span} of {asked} probes"
    if names := groups.get("level"):
        yield f"are level with {listed(names)}"


def _on_models(trained: Sequence[Row]) -> Iterator[str]:
    """Yield how AlignRec compares, by the first protocol, with the strongest that is ahead, level and beaten."""
    first = trained[0]["fingerprint"] if trained else ""
    own = [row for row in trained if row["model_b"] != RELEASED and row["fingerprint"] == first]
    own = [row for row in own if row["features_b"] in (row["features_a"], "none")]
    for word, verb in (("worse", "is behind"), ("undecided", "is level with"), ("better", "beats")):
        if rows := [row for row in own if agreed([row]) == word]:
            best = max(rows, key=lambda row: float(row["mean_b"]))
            by = "" if word == "undecided" else short(f" by {abs(best['difference']):.3f}")
            yield f"{verb} {title(best['model_b'])}{by}"


def _caution(found: Compared) -> str:
    """Return that the set is not better than a control, where that is so."""
    alike = [name for name in found.controls if "better" not in found.outcomes[name].values()]
    return f" No test shows that they are better than {listed(alike)}." if alike else ""


def probed(verdicts: Iterable[Row]) -> dict[str, str]:
    """Return the outcome in each probe: what its verdicts on one pair say at all cutoffs, else undecided."""
    by_probe: dict[str, set[str]] = {}
    for row in verdicts:
        by_probe.setdefault(f"in {PROBES[row['probe']].name}", set()).add(row["verdict"])
    return {place: words.pop() if len(words) == 1 else "undecided" for place, words in by_probe.items()}


def rival(a: str, b: str, places: Places, gaps: Mapping[str, str]) -> str:
    """Return how two feature sets compare, in one sentence that claims no more than was decided.

    Args:
        places: where they were compared -> the outcome of a.
        gaps: of some places a - b, in words.
    """
    places = {f"{place} ({gaps[place]})" if place in gaps else place: word for place, word in places.items()}
    better, worse, undecided = (
        [p for p, o in places.items() if o == word] for word in ("better", "worse", "undecided")
    )
    if not better and not worse:
        return f"{a} and {b} are not told apart {_places(undecided)}."
    clauses = [f"{verb} {b} {_places(where)}" for verb, where in (("beats", better), ("loses to", worse)) if where]
    rest = f"; not told apart {_places(undecided)}" if undecided else ""
    return f"{a} {' and '.join(clauses)}{rest}."


def basis(probes: Mapping[str, Any] | None, tests: pa.Table | None) -> str:
    """Return what the sentences rest on: the tests, their users and seeds, and the rule of the probes."""
    rows = [] if tests is None else _recalls(tests)
    parts = [f"Decided: p below {LEVEL} by paired bootstrap after Holm's correction"]
    if rows:
        protocols = listed(list(dict.fromkeys(row["protocol"] for row in rows)))
        parts.append(
            f"for recommenders test {measure(MAIN[0], rows[0]['k'])} of {rows[0]['n']:,} users, each averaged "
            f"over {seeds_of(row['seeds'] for row in rows)}, protocol {protocols}"
        )
    if (probes or {}).get("verdicts"):
        parts.append("for probes, which train no recommender, raw, processed and at every cutoff alike")
    return "; ".join(parts) + "."


def _recalls(tests: pa.Table) -> list[Row]:
    """Return the tests of AlignRec's recall against whole models, without ablations."""
    return [
        row for row in tests.to_pylist()
        if row["metric"] == MAIN[0] and row["model_a"] == RELEASED and not row["ablation_a"] and not row["ablation_b"]
    ]  # fmt: skip


def beside_controls(released: str, outcomes: Mapping[str, Places]) -> str:
    """Return whether the set beats every control at every place, and if not, where it does not."""
    lacking = [
        f"{name} {_places(where)}"
        for name, places in outcomes.items()
        if (where := [place for place, outcome in places.items() if outcome != "better"])
    ]
    named = listed(list(outcomes))
    everywhere = list(dict.fromkeys(place for places in outcomes.values() for place in places))
    if not lacking:
        return f"{released} beats its controls, {named}, {_places(everywhere)}."
    beaten = [name for name in outcomes if not any(line.startswith(f"{name} ") for line in lacking)]
    rest = f"; everywhere it beats {listed(beaten)}" if beaten else ""
    return f"Of its controls, {released} does not surely beat {', nor '.join(lacking)}{rest}."


def _beside_models(released: str, tests: Sequence[Row], several: bool) -> list[str]:
    """Return how AlignRec on the set compares with other recommenders, a sentence a protocol."""
    said = []
    for protocol in dict.fromkeys(row["protocol"] for row in tests):
        others = [row for row in tests if row["protocol"] == protocol and row["model_b"] != RELEASED]
        clauses = []
        for word, verb in (("better", "beats"), ("worse", "loses to"), ("undecided", "is not told apart from")):
            if rows := [row for row in others if agreed([row]) == word]:
                clauses.append(f"{verb} {listed([row['model_b'] for row in rows])} ({_gap(rows)})")
        if clauses:
            under = f" by {protocol}" if several else ""
            said.append(f"AlignRec on {released} {', '.join(clauses)}{under}.")
    return said


def _gap(tests: Sequence[Row]) -> str:
    """Return the differences of tests, smallest to largest."""
    gaps = sorted(test["difference"] for test in tests)
    span = f"{gaps[0]:+.4f}" + (f" to {gaps[-1]:+.4f}" if len(gaps) > 1 else "")
    return f"{span} {measure(MAIN[0], tests[0]['k'])}"


def _places(places: Sequence[str]) -> str:
    """Return places as one phrase: their common word once."""
    probed = [place.removeprefix("in ") for place in places if place.startswith("in ")]
    rest = [place for place in places if not place.startswith("in ")]
    if not probed or not rest:
        return f"in {listed(probed)}" if probed else listed(rest)
    return f"in {listed(probed)}{',' if len(probed) > 1 else ''} and {listed(rest)}"
