"""Verdicts as sentences and tables, on the released features and on the sets of a comparison (compare.json).

Sets are compared at several places: in each probe and under recommenders.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from alignrec.pipeline.evaluation.evidence import MAIN, Figure, group_values, seeds_of
from alignrec.pipeline.evaluation.statistics import LEVEL, agreed_verdict
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.probe.registry import PROBES
from alignrec.pipeline.report.probes import probe_tables, read_probes
from alignrec.pipeline.report.table import (
    BETTER,
    CONTROLS,
    FLOORED,
    SAME,
    WORSE,
    Difference,
    Table,
    describe_seeds,
    measure_name,
    p_value,
)

FEW = 1000  # users below which only large differences are significant
NOT_TRAINED = (
    "-untrained",
    "-official",
)  # suffixes of an encoder's controls: the network before pre-training
LINEAR = "linear"  # baseline without training, which leads a release if the trained set is worse
MARKS = {"better": BETTER, "worse": WORSE, "undecided": SAME}
RULE = (
    f"Better, worse: all tests of a place agree, p below {LEVEL} by paired bootstrap after Holm's correction; level: "
    "no significant difference. A probe is asked raw and processed, at each cutoff."
)
Row = Mapping[str, Any]
Places = Mapping[str, str]  # place -> outcome


@dataclass(frozen=True)
class ReleasedOutcomes:
    """Outcomes of the released features against other sets."""

    rivals: dict[str, Places]  # other set -> its places
    controls: dict[str, Places]
    models: list[
        str
    ]  # outcomes of AlignRec on the set against other models on it or on ids only, under one protocol
    tests: list[Row]  # tests of the recommender on all feature sets
    users: int  # maximum number of users in a test


def compare_released(
    released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None
) -> ReleasedOutcomes:
    # releases of other versions may have other probes
    asked = [row for row in (probes or {}).get("verdicts", []) if row["probe"] in PROBES]
    judged = [row for row in asked if row["a"] == released]
    measured = [of for of in (probes or {}).values() if isinstance(of, dict)]
    outcomes: dict[str, dict[str, str]] = {}
    for other in dict.fromkeys(row["b"] for row in judged):
        outcomes[other] = probe_outcomes([row for row in judged if row["b"] == other])
    rows = [
        row for row in (tests.to_pylist() if tests else ())
        if row["metric"] == MAIN[0] and row["model_a"] == RELEASED and not row["ablation_a"] and not row["ablation_b"]
    ]  # fmt: skip
    several = len({row["fingerprint"] for row in rows}) > 1
    models: list[str] = []
    for row in (row for row in rows if row["features_a"] == released):
        if row["model_b"] != RELEASED and row["features_b"] in (released, "none"):
            models += [agreed_verdict([row])] * (row["fingerprint"] == rows[0]["fingerprint"])
        elif row["model_b"] == RELEASED and row["features_b"] != released:
            by = f" by {row['protocol']}" if several else ""
            place = f"under AlignRec{by}, {measure_name(MAIN[0], row['k'])}"
            outcomes.setdefault(row["features_b"], {})[place] = agreed_verdict([row])
    own = {name for name in outcomes if name.startswith(f"{released.removesuffix('-raw')}-")}
    controls = {
        name
        for name in outcomes
        if name in CONTROLS or (name in own and name.endswith(NOT_TRAINED))
    }
    return ReleasedOutcomes(
        {name: places for name, places in outcomes.items() if name not in own | controls},
        {name: places for name, places in outcomes.items() if name in controls},
        models,
        rows,
        max([*(row["n"] for row in rows), *(of.get("users", 0) for of in measured)], default=0),
    )


def probe_outcomes(verdicts: Iterable[Row]) -> dict[str, str]:
    """Return the outcome in each probe: its verdict on a pair if equal at all cutoffs, otherwise undecided."""
    by_probe: dict[str, set[str]] = {}
    for row in verdicts:
        by_probe.setdefault(PROBES[row["probe"]].name, set()).add(row["verdict"])
    return {
        place: words.pop() if len(words) == 1 else "undecided" for place, words in by_probe.items()
    }


def verdict_tables(
    released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None
) -> list[Table]:
    found = compare_released(released, probes, tests)
    rows = [([name], places) for name, places in found.rivals.items()]
    rows += [([f"{name}, a control"], places) for name, places in found.controls.items()]
    note = RULE
    if found.tests:
        measure, first = measure_name(MAIN[0], found.tests[0]["k"]), found.tests[0]
        protocols = ", ".join(dict.fromkeys(row["protocol"] for row in found.tests))
        over = seeds_of(row["seeds"] for row in found.tests)
        note += f" Recommenders: test {measure} of {first['n']:,} users over {over}, {protocols}."
    return [outcome_table(note, [f"{released} against"], rows)] if rows else []


def outcome_table(
    note: str, sides: Sequence[str], found: Sequence[tuple[Sequence[str], Places]]
) -> Table:
    places = list(dict.fromkeys(place for _, of in found for place in of))
    rows = [[*names, *(MARKS[of[p]] if p in of else "" for p in places)] for names, of in found]
    head = [*sides, *places]
    marks = {
        (r, c): row[c] for r, row in enumerate(rows) for c in range(len(sides), len(head)) if row[c]
    }
    return Table("Verdict", note, head, rows, len(head), marks)


def verdict_headline(
    dataset: str, kind: str, released: str, probes: Mapping[str, Any] | None, tests: pa.Table | None
) -> str:
    found = compare_released(released, probes, tests)
    unbeaten = [name for name, places in found.controls.items() if "better" not in places.values()]
    where = f"{dataset}{' (synthetic users)' * (kind == 'sample')}"
    said = [verdict_sentence(where, released, found.rivals, found.models, unbeaten)]
    if is_below(released, LINEAR, probes, tests):
        said.append(f"It is significantly worse than {LINEAR}: release {LINEAR} (train.features).")
    outcomes = {outcome for places in found.rivals.values() for outcome in places.values()}
    if outcomes == {"undecided"} and 0 < found.users < FEW:
        advice = (
            f": release {LINEAR} (train.features), which needs no training"
            if LINEAR in found.rivals
            else ""
        )
        said.append(f"{found.users:,} users are too few to tell feature sets apart{advice}.")
    return " ".join(filter(None, said))


def is_below(
    released: str, rival: str, probes: Mapping[str, Any] | None, tests: pa.Table | None
) -> bool:
    """Return whether a feature set is worse than another in at least one comparison, and better in none."""
    outcomes = compare_released(released, probes, tests).rivals.get(rival, {}).values()
    return "worse" in outcomes and "better" not in outcomes


def verdict_sentence(
    where: str,
    features: str,
    rivals: Mapping[str, Places],
    models: Sequence[str] = (),
    unbeaten: Sequence[str] = (),
) -> str:
    """Say how often a set, and AlignRec on it (`models`), are better and worse; empty without outcomes."""
    clauses = []
    if outcomes := [outcome for places in rivals.values() for outcome in places.values()]:
        sets = f"{len(rivals)} other feature set{'s' * (len(rivals) > 1)}"
        clauses.append(f"{features} is {_count_outcomes(outcomes)} comparisons with {sets}")
    if unbeaten:
        clauses.append(f"no test puts it above the control {', '.join(unbeaten)}")
    if models:
        clauses.append(
            f"AlignRec on {features} is {_count_outcomes(models)} comparisons with other models"
        )
    return f"On {where}, {'; '.join(clauses)}." if clauses else ""


def _count_outcomes(outcomes: Sequence[str]) -> str:
    better, level, worse = (outcomes.count(outcome) for outcome in ("better", "undecided", "worse"))
    return f"better in {better}, level in {level} and worse in {worse} of {len(outcomes)}"


def headline_sentence(comparison: Row) -> str:
    first = next(iter(comparison["sets"]), "")
    rivals = {b: places for (a, b), places in _outcomes_by_pair(comparison).items() if a == first}
    return verdict_sentence(comparison.get("dataset", ""), first, rivals)


def pair_verdicts(comparison: Row) -> list[Table]:
    pairs, trained = _outcomes_by_pair(comparison), _list_trainings(comparison)
    notes = [RULE]
    notes += [f"Models were trained over {seeds_of([trained[0]['seeds']])}."] if trained else []
    doubted = (doubt["features"] for doubt in comparison.get("order", []))
    notes += [f"No verdict on {features}, whose rows look out of order." for features in doubted]
    return (
        [outcome_table(" ".join(notes), ["a", "against b"], list(pairs.items()))] if pairs else []
    )


def _outcomes_by_pair(comparison: Row) -> dict[tuple[str, str], dict[str, str]]:
    # sets whose rows seem misordered have no outcomes
    doubted = {doubt["features"] for doubt in comparison.get("order", [])}
    trained, found = _list_trainings(comparison), {}
    for a, b in dict.fromkeys((pair["a"], pair["b"]) for pair in comparison["pairs"]):
        places = probe_outcomes(
            row for row in comparison["verdicts"] if (row["a"], row["b"]) == (a, b)
        )
        tests = (
            test for one in trained for test in one["paired"] if (test["a"], test["b"]) == (a, b)
        )
        by_model = group_values((f"under {test['measure'].split()[0]}", test) for test in tests)
        places |= {model: agreed_verdict(tests) for model, tests in by_model.items()}
        found[a, b] = {} if {a, b} & doubted else places
    return found


def judged_tables(comparison: Row) -> list[Table]:
    evaluated = probe_tables(probe_figures(comparison))
    if comparison["paired"]:
        evaluated.append(
            _pair_table("Probes, pair by pair", "users or items", comparison["paired"])
        )
    for training in _list_trainings(comparison):
        figure = next(key for key in training if "@" in key)
        rows = [
            [model, name, Figure(of["mean"], of["sd"], ())]
            for model, by_set in training[figure].items() for name, of in by_set.items()
        ]  # fmt: skip
        note = (
            f"Test figures at the best valid epoch, {describe_seeds([training['seeds']])}; protocol "
            f"{training['protocol']} ({training['fingerprint']})."
        )
        head = ["model", "feature set", figure]
        evaluated.append(Table.of("Trained recommenders", note, head, rows, texts=2))
        evaluated.append(
            _pair_table("Trained recommenders, pair by pair", "users", training["paired"])
        )
    return [t for t in evaluated if t.rows or t.note]


def list_remarks(comparison: Row) -> list[str]:
    compared, of = (comparison.get("items", {}).get(key, 0) for key in ("compared", "of"))
    trained = " Models were trained on all items, with zeros for those without a row." * bool(
        _list_trainings(comparison)
    )
    partial = f"Compared on the {compared:,} of {of:,} items that every set has a row of.{trained}"
    read = read_probes(probe_figures(comparison)).values()
    caveats = (f"{probed.probe.title}: {probed.caveat}" for probed in read if probed.caveat)
    return [*[partial] * (compared < of), *describe_doubts(comparison), *caveats]


def describe_doubts(comparison: Row) -> list[str]:
    sentences = []
    for doubt in comparison.get("order", []):
        k, chance, both = doubt["neighbours"], doubt["chance"], doubt["overlap"].items()
        shares = " and ".join(f"{share:.1%} of {k} neighbours with {name}" for name, share in both)
        sentences.append(
            f"{doubt['features']}: the order of its rows looks wrong, or they are of other items. It shares {shares}, "
            f"which is chance ({chance:.1%}); these two share {doubt['shared']:.1%}. Give its order with --order, or a "
            "file with identifiers."
        )
    return sentences


def shape_tables(comparison: Row) -> list[Table]:
    rows = [
        [
            name,
            str(s["width"]),
            f"{s['effective_rank']:.1f}",
            f"{s['mean_cosine']:.3f}",
            str(s["zero_rows"]),
        ]
        for name, s in comparison["sets"].items()
    ]
    note = "Effective rank: number of directions in use. Mean cosine: 0 for isotropic features, 1 for equal directions."
    head = ["feature set", "width", "effective rank", "mean cosine", "items without direction"]
    geometric = [Table("Shape", note, head, rows)]
    if comparison["pairs"]:
        pairs = [
            [p["a"], p["b"], format_overlap(p), f"{p['cka']:.4f}"] for p in comparison["pairs"]
        ]
        first = comparison["pairs"][0]
        heading = f"shared of {first['neighbours']} neighbours"
        note = "Linear CKA is 1 for features that differ by a rotation and a scale, 0 for unrelated ones."
        if "sampled" in first:
            note += f" Neighbours are those of {first['sampled']:,} items, drawn by seed; ± is half a 95 % interval."
        geometric.append(
            Table("Similarity", note, ["a", "b", heading, "linear CKA"], pairs, texts=2)
        )
    return geometric


def format_overlap(pair: Row) -> str:
    interval = f" ± {1.96 * pair['overlap_se']:.1%}" if "sampled" in pair else ""
    return f"{pair['overlap']:.1%}{interval}"


def probe_figures(comparison: Row) -> dict[str, Any]:
    return comparison["probes"] | {key: comparison[key] for key in ("processed", "verdicts")}


def _list_trainings(comparison: Row) -> list[Row]:
    first = comparison.get("training")
    return [first, *first.get("also", [])] if first else []


def _pair_table(heading: str, unit: str, rows: Sequence[Row]) -> Table:
    cells = [
        [row["measure"], row["a"], row["b"], Difference.of(row), p_value(row["p"])] for row in rows
    ]
    note = (
        f"The same {unit} under both sets; 95 % interval of the mean difference and p by paired bootstrap, first "
        f"corrected (Holm) for all rows, then uncorrected. {FLOORED}"
    )
    head = ["measure", "a", "b", "a - b", "95 % interval", "p, Holm", "p"]
    return Table.of(heading, note, head, cells, texts=3)
