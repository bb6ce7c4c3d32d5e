"""A comparison of feature sets (compare.json) as tables and as one sentence."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignrec.pipeline.evaluation.evidence import Cell, group_values, seeds_of
from alignrec.pipeline.probe.verdicts import agreed_verdict
from alignrec.pipeline.report import probes, verdict
from alignrec.pipeline.report.table import FLOORED, Difference, Table, describe_seeds, p_value

Record = Mapping[str, Any]


def headline_sentence(comparison: Record) -> str:
    first = next(iter(comparison["sets"]), "")
    rivals = {b: places for (a, b), places in _outcomes_by_pair(comparison).items() if a == first}
    return verdict.verdict_sentence(comparison.get("dataset", ""), first, rivals)


def verdict_tables(comparison: Record) -> list[Table]:
    pairs, trained = _outcomes_by_pair(comparison), _list_trainings(comparison)
    notes = [verdict.RULE]
    notes += [f"Models were trained over {seeds_of([trained[0]['seeds']])}."] if trained else []
    doubted = (doubt["features"] for doubt in comparison.get("order", []))
    notes += [f"No verdict on {features}, whose rows look out of order." for features in doubted]
    return [verdict.outcome_table(" ".join(notes), ["a", "against b"], list(pairs.items()))] if pairs else []


def _outcomes_by_pair(comparison: Record) -> dict[tuple[str, str], dict[str, str]]:
    # sets whose rows seem out of order have no outcomes
    doubted = {doubt["features"] for doubt in comparison.get("order", [])}
    trained, found = _list_trainings(comparison), {}
    for a, b in dict.fromkeys((pair["a"], pair["b"]) for pair in comparison["pairs"]):
        places = verdict.in_probes(_rows_of_pair(comparison["verdicts"], a, b))
        tests = (test for one in trained for test in _rows_of_pair(one["paired"], a, b))
        by_model = group_values((f"under {test['measure'].split()[0]}", test) for test in tests)
        places |= {model: agreed_verdict(tests) for model, tests in by_model.items()}
        found[a, b] = {} if {a, b} & doubted else places
    return found


def judged_tables(comparison: Record) -> list[Table]:
    evaluated = probes.probe_tables(probe_figures(comparison))
    if comparison["paired"]:
        evaluated.append(_pair_table("Probes, pair by pair", "users or items", comparison["paired"]))
    for training in _list_trainings(comparison):
        evaluated.append(_training_table(training))
        evaluated.append(_pair_table("Trained recommenders, pair by pair", "users", training["paired"]))
    return [t for t in evaluated if t.rows or t.note]


def list_remarks(comparison: Record) -> list[str]:
    compared, of = (comparison.get("items", {}).get(key, 0) for key in ("compared", "of"))
    trained = " Models were trained on all items, with zeros for those without a row." * bool(
        _list_trainings(comparison)
    )
    partial = f"Compared on the {compared:,} of {of:,} items that every set has a row of.{trained}"
    read = probes.read_probes(probe_figures(comparison)).values()
    caveats = (f"{probed.probe.title}: {probed.caveat}" for probed in read if probed.caveat)
    return [*[partial] * (compared < of), *describe_doubts(comparison), *caveats]


def describe_doubts(comparison: Record) -> list[str]:
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


def sources_table(comparison: Record) -> Table:
    rows = [[name, source] for name, source in comparison["sources"].items()]
    return Table("Files", "", ["feature set", "file, and how its rows were matched with items"], rows, texts=2)


def shape_tables(comparison: Record) -> list[Table]:
    rows = [
        [name, str(s["width"]), f"{s['effective_rank']:.1f}", f"{s['mean_cosine']:.3f}", str(s["zero_rows"])]
        for name, s in comparison["sets"].items()
    ]
    note = "Effective rank: number of directions in use. Mean cosine: 0 for isotropic features, 1 for equal directions."
    head = ["feature set", "width", "effective rank", "mean cosine", "items without direction"]
    geometric = [Table("Shape", note, head, rows)]
    if comparison["pairs"]:
        pairs = [[p["a"], p["b"], format_overlap(p), f"{p['cka']:.4f}"] for p in comparison["pairs"]]
        first = comparison["pairs"][0]
        heading = f"shared of {first['neighbours']} neighbours"
        note = "Linear CKA is 1 for features that differ by a rotation and a scale, 0 for unrelated ones."
        if "sampled" in first:
            note += f" Neighbours are those of {first['sampled']:,} items, drawn by seed; ± is half a 95 % interval."
        geometric.append(Table("Similarity", note, ["a", "b", heading, "linear CKA"], pairs, texts=2))
    return geometric


def format_overlap(pair: Record) -> str:
    interval = f" ± {1.96 * pair['overlap_se']:.1%}" if "sampled" in pair else ""
    return f"{pair['overlap']:.1%}{interval}"


def probe_figures(comparison: Record) -> dict[str, Any]:
    return comparison["probes"] | {key: comparison[key] for key in ("processed", "verdicts")}


def _list_trainings(comparison: Record) -> list[Record]:
    first = comparison.get("training")
    return [first, *first.get("also", [])] if first else []


def _rows_of_pair(rows: Iterable[Record], a: str, b: str) -> list[Record]:
    return [row for row in rows if (row["a"], row["b"]) == (a, b)]


def _training_table(training: Record) -> Table:
    figure = next(key for key in training if "@" in key)
    rows = [
        [model, name, Cell(of["mean"], of["sd"], ())]
        for model, by_set in training[figure].items() for name, of in by_set.items()
    ]  # fmt: skip
    note = (
        f"Test figures at the best valid epoch, {describe_seeds([training['seeds']])}; protocol "
        f"{training['protocol']} ({training['fingerprint']})."
    )
    return Table.of("Trained recommenders", note, ["model", "feature set", figure], rows, texts=2)


def _pair_table(heading: str, unit: str, rows: Sequence[Record]) -> Table:
    cells = [[row["measure"], row["a"], row["b"], Difference.of(row), p_value(row["p"])] for row in rows]
    note = (
        f"The same {unit} under both sets; 95 % interval of the mean difference and p by paired bootstrap, first "
        f"corrected (Holm) for all rows, then as it is. {FLOORED}"
    )
    head = ["measure", "a", "b", "a - b", "95 % interval", "p, Holm", "p"]
    return Table.of(heading, note, head, cells, texts=3)
