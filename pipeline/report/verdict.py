"""The verdict on the released features: the first sentence of a report, and its table.

Sets are compared at several places: in each probe, and under the released recommender. The outcome at a place is
better, worse or undecided, by pipeline/probe/verdicts.py and the paired tests of the benchmark.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.evaluation.evidence import MAIN, seeds_of
from pipeline.evaluation.statistics import LEVEL
from pipeline.models import RELEASED
from pipeline.probe.registry import PROBES
from pipeline.probe.verdicts import agreed
from pipeline.report.difference import BETTER, SAME, WORSE
from pipeline.report.probes import Probed, read
from pipeline.report.table import Table
from pipeline.report.words import CONTROLS, listed, measure, short, title

NOT_TRAINED = ("-untrained", "-official")  # suffixes of an encoder's controls: the network before training here
MARKS = {"better": BETTER, "worse": WORSE, "undecided": SAME}
RULE = (
    f"Better, worse: all tests of a place agree, p below {LEVEL} by paired bootstrap after Holm's correction; level: "
    "no significant difference. A probe is asked raw and processed, at each cutoff."
)
Row = Mapping[str, Any]
Places = Mapping[str, str]  # place -> outcome
Names = TypeVar("Names", bound=tuple[str, ...])  # names of what was compared


@dataclass(frozen=True)
class Compared:
    """Outcomes of a feature set against others."""

    outcomes: dict[str, dict[str, str]]  # other set -> place -> outcome
    gaps: dict[str, dict[str, str]]  # other set -> place of a recommender -> a - b, in words
    trained: list[Row]  # tests of AlignRec on the set against any other run
    rivals: list[str]
    controls: list[str]


def compared(released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None) -> Compared:
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
            by = f" by {row['protocol']}" if several else ""
            place = f"under AlignRec{by}, {measure(MAIN[0], row['k'])}"
            outcomes.setdefault(row["features_b"], {})[place] = agreed([row])
            gaps.setdefault(row["features_b"], {})[place] = f"{row['difference']:+.4f}"
    own = [name for name in outcomes if name.startswith(f"{released.removesuffix('-raw')}-")]
    controls = [name for name in outcomes if name in CONTROLS or (name in own and name.endswith(NOT_TRAINED))]
    rivals = [name for name in outcomes if name not in own and name not in controls]
    return Compared(outcomes, gaps, trained, rivals, controls)


def probed(verdicts: Iterable[Row]) -> dict[str, str]:
    """Return the outcome in each probe: its verdict on one pair if equal at all cutoffs, else undecided."""
    by_probe: dict[str, set[str]] = {}
    for row in verdicts:
        by_probe.setdefault(f"in {PROBES[row['probe']].name}", set()).add(row["verdict"])
    return {place: words.pop() if len(words) == 1 else "undecided" for place, words in by_probe.items()}


def _recalls(tests: pa.Table) -> list[Row]:
    return [
        row for row in tests.to_pylist()
        if row["metric"] == MAIN[0] and row["model_a"] == RELEASED and not row["ablation_a"] and not row["ablation_b"]
    ]  # fmt: skip


def table(
    note: str, sides: Sequence[str], found: Mapping[Names, Places], more: Mapping[Names, Mapping[str, str]]
) -> Table:
    """Return a row per comparison and a column per place, cells marked with outcomes, and `more` texts after them."""
    places = list(dict.fromkeys(place for of in found.values() for place in of))
    marks = {
        (r, len(sides) + c): MARKS[of[place]]
        for r, of in enumerate(found.values()) for c, place in enumerate(places) if place in of
    }  # fmt: skip
    rows = [
        [*names, *(f"{MARKS[of[p]]} {more.get(names, {}).get(p, '')}".strip() if p in of else "" for p in places)]
        for names, of in found.items()
    ]
    head = [*sides, *(place.removeprefix("in ") for place in places)]
    return Table("Verdict", note, head, rows, len(head), marks)


def tables(released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None) -> list[Table]:
    found = compared(released, probes, tests)
    named = {name: (name,) for name in found.rivals} | {name: (f"{name}, a control",) for name in found.controls}
    outcomes = {key: found.outcomes[name] for name, key in named.items()}
    gaps = {key: found.gaps.get(name, {}) for name, key in named.items()}
    note = " ".join([RULE, *_basis([] if tests is None else _recalls(tests))])
    return [table(note, [f"{released} against"], outcomes, gaps)] if named else []


def _basis(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        protocols = listed(list(dict.fromkeys(row["protocol"] for row in rows)))
        yield (
            f"Recommenders: test {measure(MAIN[0], rows[0]['k'])} of {rows[0]['n']:,} users, each averaged over "
            f"{seeds_of(row['seeds'] for row in rows)}, protocol {protocols}."
        )


def advice(probes: Mapping[str, Any] | None) -> str:
    """Return the advice to use another set: the one that most probes decide for, and none against; else empty.

    Probes that flatter sets which learned from interactions do not count for those.
    """
    released = next((row["a"] for row in (probes or {}).get("verdicts", [])), "")
    found, figures, learned = compared(released, probes, None), read(probes), (probes or {}).get("learned", ())
    winner, most = "", list[str]()
    for rival in found.rivals:
        asked = [key for key, probe in PROBES.items() if not (probe.leak and rival in learned)]
        outcomes = {key: found.outcomes[rival].get(f"in {PROBES[key].name}") for key in asked}
        won = [key for key, outcome in outcomes.items() if outcome == "worse"]
        if "better" not in outcomes.values() and len(won) > len(most):
            winner, most = rival, won
    if not winner:
        return ""
    places = [f"{PROBES[key].name}{_in_brackets(figures.get(key), winner, released)}" for key in most]
    return f"Use {winner}, not {released}: it is better in {listed(places)}, and worse in no probe."


def _in_brackets(probed: Probed | None, a: str, b: str) -> str:
    if probed is None or not {a, b} <= probed.forms.get("raw", {}).keys():
        return ""
    of = probed.of("raw", probed.figure)
    return short(f" ({of[a]:.3f} to {of[b]:.3f} {probed.figure})")


def headline(dataset: str, kind: str, released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None) -> str:
    """Return the verdict in one sentence, of probes.json and table TESTS; empty without comparisons."""
    found = compared(released, probes, tests)
    rivals = {name: found.outcomes[name] for name in found.rivals if not name.endswith("-masked")}
    features, trained = list(on_probes(rivals)), list(_on_models(found.trained))
    models = [f"AlignRec on {'them' if features else title(released)} {listed(trained)}"] if trained else []
    verdict = sentence(dataset, kind, released, features, models)
    alike = [name for name in found.controls if "better" not in found.outcomes[name].values()]
    caution = f" No test shows that they are better than {listed(alike)}." if alike else ""
    return verdict and verdict + caution


def sentence(dataset: str, kind: str, features: str, probes: Sequence[str], models: Sequence[str]) -> str:
    clauses = [*([f"{title(features)} features {listed(probes)}"] if probes else []), *models]
    where = f"On {dataset}{' (synthetic users)' if kind == 'sample' else ''}"
    return f"{where}, {'; '.join(clauses)}." if clauses else ""


def on_probes(rivals: Mapping[str, Places]) -> Iterator[str]:
    """Yield clauses on the sets that are beaten, ahead, both, or level in the probes."""
    groups: dict[str, list[str]] = {}
    counts: dict[str, set[int]] = {}
    asked = 0
    for rival, places in rivals.items():
        outcomes = [outcome for place, outcome in places.items() if place.startswith("in ")]
        if not outcomes:
            continue
        asked, won, lost = max(asked, len(outcomes)), outcomes.count("better"), outcomes.count("worse")
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
    """Yield clauses on the strongest models that are ahead, level and beaten, under the first protocol."""
    first = trained[0]["fingerprint"] if trained else ""
    own = [row for row in trained if row["model_b"] != RELEASED and row["fingerprint"] == first]
    own = [row for row in own if row["features_b"] in (row["features_a"], "none")]
    for word, verb in (("worse", "is behind"), ("undecided", "is level with"), ("better", "beats")):
        if rows := [row for row in own if agreed([row]) == word]:
            best = max(rows, key=lambda row: float(row["mean_b"]))
            by = "" if word == "undecided" else short(f" by {abs(best['difference']):.3f}")
            yield f"{verb} {title(best['model_b'])}{by}"
