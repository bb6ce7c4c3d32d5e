"""Verdicts as tables and sentences, on the released features and on the sets of a comparison.

Sets are compared at several places: in each probe and, if released, under recommenders. The first
sentence says which set to use; all follow from the tests.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from alignrec.pipeline.evaluation.evidence import MAIN, group_values, seeds_of
from alignrec.pipeline.evaluation.probe.registry import PROBES
from alignrec.pipeline.evaluation.statistics import LEVEL, agreed_verdict
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.features.names import LINEAR
from alignrec.pipeline.features.quality import MIN_UNREAD
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.probes import RAW, SHUFFLED, probe_tables, read_probes
from alignrec.pipeline.report.results import select_tests
from alignrec.pipeline.report.table import (
    BETTER,
    FLOORED,
    SAME,
    WORSE,
    Difference,
    Fields,
    Table,
    Value,
    measure_name,
    p_value,
)

MIN_USERS = 1000  # below, only large differences are significant
TRAINED = "beit3"  # prefix of the sets that are trained here, which `linear` is advised against
OPPOSITE = {"better": "worse", "worse": "better", "undecided": "undecided"}
# suffixes of an encoder's controls: the network before pre-training
NOT_TRAINED = ("-untrained", "-official")
MARKS = {"better": BETTER, "worse": WORSE, "undecided": SAME}
RULE = (
    f"Better, worse: all tests of a place agree, p below {LEVEL} by paired bootstrap after Holm's "
    "correction; level: no significant difference. A probe is asked raw and processed, at each "
    "cutoff."
)
Places = Mapping[str, str]  # place -> outcome


@dataclass(frozen=True)
class ReleasedOutcomes:
    """Outcomes of the released features against other sets."""

    rivals: dict[str, Places]  # other set -> its places
    controls: dict[str, Places]
    tests: list[dict[str, Any]]  # of the recommender on all feature sets
    users: int  # maximum number of users in a test


def compare_released(
    released: str, probes: Fields | None, tests: pa.Table | None
) -> ReleasedOutcomes:
    probes = probes or {}
    recommender_tests = _recommender_tests(tests)
    verdicts = group_values(
        (row["b"], row) for row in probes.get("verdicts", []) if row["a"] == released
    )
    outcomes = {other: probe_outcomes(rows) for other, rows in verdicts.items()}
    for other, place, word in _outcomes_under_alignrec(released, recommender_tests):
        outcomes.setdefault(other, {})[place] = word

    rivals: dict[str, Places] = {}
    controls: dict[str, Places] = {}
    for name, places in outcomes.items():
        is_own_form = name.startswith(f"{released.removesuffix('-raw')}-")
        if name in CONTROLS or (is_own_form and name.endswith(NOT_TRAINED)):
            controls[name] = places
        elif not is_own_form:
            rivals[name] = places

    users = [row["n"] for row in recommender_tests]
    users += [probe.get("users", 0) for probe in probes.values() if isinstance(probe, dict)]
    return ReleasedOutcomes(
        rivals=rivals,
        controls=controls,
        tests=recommender_tests,
        users=max(users, default=0),
    )


def _recommender_tests(tests: pa.Table | None) -> list[dict[str, Any]]:
    rows = select_tests(tests)
    return [row for row in rows if row["model_a"] == RELEASED and not row["ablation_b"]]


def _outcomes_under_alignrec(
    released: str, tests: Sequence[Fields]
) -> Iterator[tuple[str, str, str]]:
    """Yield other sets, places and outcomes."""
    has_protocols = len({row["fingerprint"] for row in tests}) > 1
    for row in tests:
        other = row["features_b"]
        if row["features_a"] == released and row["model_b"] == RELEASED and other != released:
            protocol = f" by {row['protocol']}" if has_protocols else ""
            place = f"under AlignRec{protocol}, {measure_name(MAIN[0], row['k'])}"
            yield other, place, agreed_verdict([row])


def probe_outcomes(verdicts: Iterable[Fields]) -> dict[str, str]:
    """Return the outcome in each probe: its verdict on a pair if equal at all cutoffs."""
    # releases of other versions may have other probes
    by_probe = group_values(
        (PROBES[row["probe"]].name, row["verdict"]) for row in verdicts if row["probe"] in PROBES
    )
    return {
        place: words[0] if len(set(words)) == 1 else "undecided"
        for place, words in by_probe.items()
    }


def verdict_tables(released: str, probes: Fields | None, tests: pa.Table | None) -> list[Table]:
    outcomes = compare_released(released, probes, tests)
    rows = [([name], places) for name, places in outcomes.rivals.items()]
    rows += [([f"{name}, a control"], places) for name, places in outcomes.controls.items()]
    if not rows:
        return []

    note = RULE
    if outcomes.tests:
        first = outcomes.tests[0]
        measure = measure_name(MAIN[0], first["k"])
        protocols = ", ".join(dict.fromkeys(row["protocol"] for row in outcomes.tests))
        seeds = seeds_of(row["seeds"] for row in outcomes.tests)
        note += f" Recommenders: test {measure} of {first['n']:,} users over {seeds}, {protocols}."
    return [outcome_table(note, [f"{released} against"], rows)]


def outcome_table(
    note: str, sides: Sequence[str], outcomes: Sequence[tuple[Sequence[str], Places]]
) -> Table:
    columns = list(dict.fromkeys(place for _, places in outcomes for place in places))
    rows: list[list[str]] = []
    marks = {}
    for names, places in outcomes:
        cells = [MARKS[places[place]] if place in places else "" for place in columns]
        for column, cell in enumerate(cells, start=len(sides)):
            if cell:
                marks[len(rows), column] = cell
        rows.append([*names, *cells])

    head = [*sides, *columns]
    return Table("Verdict", note, head, rows, texts=len(head), marks=marks)


def is_worse(places: Places) -> bool:
    """Return whether a set is worse in at least one comparison, and better in none."""
    return "worse" in places.values() and "better" not in places.values()


def pair_verdicts(comparison: Fields) -> list[Table]:
    pairs = list(outcomes_by_pair(comparison).items())
    return [outcome_table(RULE, ["a", "against b"], pairs)] if pairs else []


def outcomes_by_pair(comparison: Fields) -> dict[tuple[str, str], dict[str, str]]:
    verdicts = group_values(((row["a"], row["b"]), row) for row in comparison["verdicts"])
    pairs = [(pair["a"], pair["b"]) for pair in comparison["pairs"]]
    return {pair: probe_outcomes(verdicts.get(pair, [])) for pair in pairs}


def judged_tables(comparison: Fields) -> list[Table]:
    tables = probe_tables(probe_figures(comparison))
    if comparison["paired"]:
        tables.append(_paired_table(comparison["paired"]))
    return [table for table in tables if table.rows or table.note]


def list_remarks(comparison: Fields) -> list[str]:
    remarks = []
    items = comparison.get("items")
    if items and items["compared"] < items["of"]:
        remarks.append(
            f"Compared on the {items['compared']:,} of {items['of']:,} items that every set has "
            "a row of."
        )
    probes = read_probes(probe_figures(comparison)).values()
    caveats = [f"{probed.probe.title}: {probed.caveat}" for probed in probes if probed.caveat]
    return remarks + caveats


def describe_doubts(comparison: Fields) -> list[str]:
    """Return what to check in files before their verdict is believed."""
    oddities = [
        f"{name}: {oddity}."
        for name, found in comparison.get("oddities", {}).items()
        for oddity in found
    ]
    return oddities + [
        f"{doubt['features']}: the order of its rows looks wrong, or its vectors are not of these "
        f"items. It shares at most {doubt['overlap']:.1%} of {doubt['neighbours']} neighbours with "
        f"any other set, which is chance ({doubt['chance']:.1%}). Give its order with --order, or "
        "a file with identifiers."
        for doubt in comparison.get("order", [])
    ]


def shape_tables(comparison: Fields) -> list[Table]:
    rows = []
    for name, shape in comparison["sets"].items():
        rank = f"{shape['effective_rank']:.1f}"
        cosine = f"{shape['mean_cosine']:.3f}"
        rows.append([name, str(shape["width"]), rank, cosine, str(shape["zero_rows"])])

    note = (
        "Effective rank: number of directions in use. Mean cosine: 0 for isotropic features, 1 for "
        "equal directions."
    )
    head = ["feature set", "width", "effective rank", "mean cosine", "items without direction"]
    shapes = Table("Shape", note, head, rows)
    return [shapes, _similarity_table(comparison["pairs"])] if comparison["pairs"] else [shapes]


def _similarity_table(pairs: Sequence[Fields]) -> Table:
    rows = [[pair["a"], pair["b"], format_overlap(pair), f"{pair['cka']:.4f}"] for pair in pairs]
    note = (
        "Linear CKA is 1 for features that differ by a rotation and a scale, 0 for unrelated ones."
    )
    first = pairs[0]
    if "sampled" in first:
        note += (
            f" Neighbours are those of {first['sampled']:,} items, drawn by seed; ± is half a 95 "
            "% "
            "interval."
        )
    head = ["a", "b", f"shared of {first['neighbours']} neighbours", "linear CKA"]
    return Table("Similarity", note, head, rows, texts=2)


def format_overlap(pair: Fields) -> str:
    interval = f" ± {1.96 * pair['overlap_se']:.1%}" if "sampled" in pair else ""
    return f"{pair['overlap']:.1%}{interval}"


def probe_figures(comparison: Fields) -> dict[str, Any]:
    figures: dict[str, Any] = comparison["probes"]
    return figures | {key: comparison[key] for key in ("processed", "verdicts")}


def _paired_table(tests: Sequence[Fields]) -> Table:
    rows: list[list[Value]] = []
    for row in tests:
        sides = [row["measure"], row["a"], row["b"]]
        rows.append([*sides, Difference.of(row), p_value(row["p"])])

    note = (
        "The same users or items under both sets; 95 % interval of the mean difference and p by "
        "paired bootstrap, first corrected (Holm) for all rows, then uncorrected. "
        f"{FLOORED}"
    )
    head = ["measure", "a", "b", "a - b", "95 % interval", "p, Holm", "p"]
    return Table.of("Probes, pair by pair", note, head, rows, texts=3)


def advise(outputs: Outputs) -> list[str]:
    """Return sentences on the released feature set of a dataset; the first says what to use.

    Empty without evidence.
    """
    released = outputs.released
    outcomes = compare_released(released, outputs.probes, outputs.tests)
    chosen = choose_set(released, outcomes)
    where = outputs.layout.dataset
    if outputs.kind == "sample":
        where += " (synthetic users)"

    sentences = [
        _say_what_to_use(where, chosen, released, outcomes),
        _describe_few_users(outcomes),
        _describe_controls(released, outcomes.controls),
        _describe_unread(outputs.unread),
    ]
    return [sentence for sentence in sentences if sentence]


def choose_set(released: str, outcomes: ReleasedOutcomes) -> str:
    """Return the released set, or one that beats it, or `linear` if training gains nothing."""
    winners = {name: places for name, places in outcomes.rivals.items() if is_worse(places)}
    if winners:
        losses = {name: [*places.values()].count("worse") for name, places in winners.items()}
        return max(winners, key=lambda name: (losses[name], name == LINEAR))

    places = outcomes.rivals.get(LINEAR, {})
    if released.startswith(TRAINED) and {*places.values()} == {"undecided"}:
        return LINEAR
    return released


def _say_what_to_use(where: str, chosen: str, released: str, outcomes: ReleasedOutcomes) -> str:
    if chosen != released:
        words = [*outcomes.rivals[chosen].values()]
        tested = _comparisons(len(words))
        if "worse" in words:
            return (
                f"Use {chosen} (train.features) on {where}, not {released}: it is significantly "
                f"better in {words.count('worse')} of {tested}."
            )
        return (
            f"Use {chosen} (train.features) on {where}: it needs no training, and {released} is "
            f"significantly better in none of {tested} with it."
        )

    # of controls without content: a network before pre-training may be as good
    unbeaten = [
        name
        for name, places in outcomes.controls.items()
        if name in CONTROLS and "better" not in places.values()
    ]
    if unbeaten:
        controls = _name_controls(unbeaten)
        return f"Do not use {released} on {where} yet: no comparison puts it above {controls}."
    if not outcomes.rivals:
        return f"Use {released} on {where}: it is above the controls." if outcomes.controls else ""
    return conclude(where, {released: outcomes.rivals})


def conclude(where: str, best: Mapping[str, Mapping[str, Places]]) -> str:
    """Say which sets to use: `best` has the outcomes of each against each other set."""
    names = " or ".join(best)
    words = {name: _list_outcomes(rivals) for name, rivals in best.items()}
    if all({*found} == {"undecided"} for found in words.values()):
        return f"Use {names} on {where}: no significant difference in any comparison."

    clauses = []
    for name, rivals in best.items():
        subject = f"{name} is " if len(best) > 1 else ""
        clauses.append(f"{subject}{_describe_outcomes(words[name], _name_others([*rivals]))}")
    return f"Use {names} on {where}: {'; '.join(clauses)}."


def _describe_few_users(outcomes: ReleasedOutcomes) -> str:
    is_level = {*_list_outcomes(outcomes.rivals)} == {"undecided"}
    if not is_level or not 0 < outcomes.users < MIN_USERS:
        return ""
    return f"{outcomes.users:,} users are too few to tell feature sets apart."


def _describe_controls(released: str, controls: Mapping[str, Places]) -> str:
    if not controls:
        return ""
    words = _list_outcomes(controls)
    return (
        f"{released} is above {_name_controls(controls)} in {words.count('better')} of "
        f"{_comparisons(len(words))}."
    )


def _describe_unread(unread: Mapping[str, float]) -> str:
    clauses = [
        f"{share:.0%} of texts cannot be read by {name}"
        for name, share in unread.items()
        if share >= MIN_UNREAD
    ]
    if not clauses:
        return ""
    return f"{'; '.join(clauses)}: add an encoder of their language to encode.encoders."


def advise_comparison(comparison: Fields) -> list[str]:
    """Return sentences on the compared sets; the first says which to use. Empty for one set."""
    outcomes: dict[str, dict[str, Places]] = {name: {} for name in comparison["sets"]}
    for (a, b), places in outcomes_by_pair(comparison).items():
        outcomes[a][b] = places
        outcomes[b][a] = {place: OPPOSITE[word] for place, word in places.items()}
    leads = {}
    for name, rivals in outcomes.items():
        if words := _list_outcomes(rivals):
            leads[name] = words.count("better") - words.count("worse")
    if not leads:
        return []

    best = [name for name, lead in leads.items() if lead == max(leads.values())]
    sentences = [conclude(comparison.get("dataset", ""), {name: outcomes[name] for name in best})]
    sentences.append(_describe_control(comparison, best[0]))
    doubtful = [doubt["features"] for doubt in comparison.get("order", [])]
    if doubtful:
        sentences.append(f"First check the order of rows in {', '.join(doubtful)}: it looks wrong.")
    return [sentence for sentence in sentences if sentence]


def _describe_control(comparison: Fields, name: str) -> str:
    for probed in read_probes(probe_figures(comparison)).values():
        figures = probed.headline(RAW)
        if {name, SHUFFLED} <= figures.keys():
            return (
                f"The {probed.probe.name} {probed.probe.figure} of {name} is {figures[name]:.3f}, "
                f"that of the control {SHUFFLED} {figures[SHUFFLED]:.3f}."
            )
    return ""


def _describe_outcomes(words: Sequence[str], others: str) -> str:
    """Return such as: better than tfidf in 2 of 5 comparisons, never significantly worse."""
    better, worse = words.count("better"), words.count("worse")
    tested = _comparisons(len(words))
    if not better and not worse:
        return f"not significantly different from {others} in {tested}"
    if not better:
        return f"never significantly better than {others}, worse in {worse} of {tested}"

    rest = f"worse in {worse}" if worse else "never significantly worse"
    return f"better than {others} in {better} of {tested}, {rest}"


def _name_others(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"the other {len(names)} feature sets"


def _name_controls(names: Sequence[str] | Mapping[str, Places]) -> str:
    plural = "s" if len(names) > 1 else ""
    return f"the control{plural} {', '.join(names)}"


def _comparisons(count: int) -> str:
    return "1 comparison" if count == 1 else f"{count} comparisons"


def _list_outcomes(rivals: Mapping[str, Places]) -> list[str]:
    return [word for places in rivals.values() for word in places.values()]
