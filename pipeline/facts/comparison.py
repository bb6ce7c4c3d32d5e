"""A comparison of feature sets, the content of compare.json, as tables and as a verdict in words."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.evaluation.evidence import seeds_of
from pipeline.facts import chips, probes, verdict
from pipeline.facts.chips import Chip
from pipeline.facts.difference import FLOORED, Difference, p_value
from pipeline.facts.table import Table
from pipeline.facts.words import title, with_error
from pipeline.probe.verdicts import LEVEL, agreed

RULE = (
    f"Decided where all tests agree, p below {LEVEL} after Holm's correction: of probes, raw and processed, at each "
    "cutoff."
)
Record = Mapping[str, Any]


def sentences(comparison: Record) -> list[str]:
    """Return a sentence a pair of sets, and the rule; nothing where there are no two sets."""
    said, trained = [], _trainings(comparison)
    for a, b, places, wrong in _pairs(comparison):
        if wrong:
            said.append(f"No verdict on {a} and {b}: the order of the rows of {' and '.join(wrong)} looks wrong.")
        else:
            said.append(verdict.rival(a, b, places, {}) if places else f"No probe was asked of both {a} and {b}.")
    seeds = f" Models were trained over {seeds_of([trained[0]['seeds']])}." if trained else ""
    return [*said, RULE + seeds] if said else []


def claims(comparison: Record) -> list[Chip]:
    """Return the verdict at a glance: a chip a pair of sets for the probes, and one a model that was trained."""
    said = []
    for a, b, places, wrong in _pairs(comparison):
        if wrong:
            said.append(
                Chip(f"no verdict on {b}", chips.LEVEL, f"The rows of {' and '.join(wrong)} look out of order.")
            )
            continue
        if chip := chips.in_probes(a, b, places):
            said.append(chip._replace(text=f"{title(a)} {_verb(chip.text)}"))
        for place, outcome in places.items():
            if place.startswith("under "):
                model = title(place.removeprefix("under "))
                verb = {"better": "beats", "worse": "is behind"}.get(outcome, "is level with")
                detail = verdict.rival(a, b, {place: outcome}, {})
                colour = outcome if outcome in (chips.BETTER, chips.WORSE) else chips.LEVEL
                said.append(Chip(f"{title(a)} {verb} {title(b)} under {model}", colour, detail))
    return said


def _verb(text: str) -> str:
    """Return a claim as the predicate of a sentence."""
    return text if text.startswith("beats") else f"is {text}"


def _pairs(comparison: Record) -> Iterator[tuple[str, str, dict[str, str], list[str]]]:
    """Yield each pair of sets, the outcome at each place, and which of the two seem out of order."""
    doubted = {doubt["features"] for doubt in comparison.get("order", [])}
    trained = _trainings(comparison)
    for a, b in dict.fromkeys((pair["a"], pair["b"]) for pair in comparison["pairs"]):
        places = verdict.probed(_of(comparison["verdicts"], a, b))
        places |= _by_model(_of(one["paired"], a, b) for one in trained)
        yield a, b, places, [name for name in (a, b) if name in doubted]


def judged(comparison: Record) -> list[Table]:
    """Return the tables of probes, trainings and paired tests."""
    evaluated = probes.tables(probed(comparison))
    if comparison["paired"]:
        evaluated.append(_paired("Probes, pair by pair", "users or items", comparison["paired"]))
    for training in _trainings(comparison):
        evaluated.append(_training(training))
        evaluated.append(_paired("Trained recommenders, pair by pair", "users", training["paired"]))
    return [t for t in evaluated if t.rows or t.note]


def remarks(comparison: Record) -> list[str]:
    """Return whose rows seem to be out of order, the caveats of the probes, and what they are not shown for."""
    read = probes.read(probed(comparison)).values()
    return [*doubts(comparison), *(f"{probed.probe.title}: {probed.caveat}" for probed in read if probed.caveat)]


def doubts(comparison: Record) -> list[str]:
    """Return a sentence a feature set whose rows seem to lie in another order than the items."""
    said = []
    for doubt in comparison.get("order", []):
        k, chance, both = doubt["neighbours"], doubt["chance"], doubt["overlap"].items()
        shares = " and ".join(f"{share:.1%} of {k} neighbours with {name}" for name, share in both)
        said.append(
            f"{doubt['features']}: the order of its rows looks wrong, or they are of other items. It shares {shares}, "
            f"which is chance ({chance:.1%}); these two share {doubt['shared']:.1%}. Give its order with --order, or a "
            "file with identifiers."
        )
    return said


def sources(comparison: Record) -> Table:
    """Return the table of the files, and of how their rows were matched with items."""
    rows = [[name, source] for name, source in comparison["sources"].items()]
    return Table("Files", "", ["feature set", "file, and how its rows were matched with items"], rows, texts=2)


def shapes(comparison: Record) -> list[Table]:
    """Return the tables of geometry and similarity."""
    rows = [
        [name, str(s["width"]), f"{s['effective_rank']:.1f}", f"{s['mean_cosine']:.3f}", str(s["zero_rows"])]
        for name, s in comparison["sets"].items()
    ]
    note = "Effective rank: number of directions in use. Mean cosine: 0 for isotropic features, 1 for equal directions."
    head = ["feature set", "width", "effective rank", "mean cosine", "items without direction"]
    geometric = [Table("Shape", note, head, rows)]
    if comparison["pairs"]:
        pairs = [[p["a"], p["b"], shared(p), f"{p['cka']:.4f}"] for p in comparison["pairs"]]
        first = comparison["pairs"][0]
        heading = f"shared of {first['neighbours']} neighbours"
        note = "Linear CKA is 1 for features that differ by a rotation and a scale, 0 for unrelated ones."
        if "sampled" in first:
            note += f" Neighbours are those of {first['sampled']:,} items, drawn by seed; ± is half a 95 % interval."
        geometric.append(Table("Similarity", note, ["a", "b", heading, "linear CKA"], pairs, texts=2))
    return geometric


def shared(pair: Record) -> str:
    """Return the share of neighbours that two sets share; of drawn items with half of its 95 % interval."""
    interval = f" ± {1.96 * pair['overlap_se']:.1%}" if "sampled" in pair else ""
    return f"{pair['overlap']:.1%}{interval}"


def probed(comparison: Record) -> dict[str, Any]:
    return comparison["probes"] | {key: comparison[key] for key in ("processed", "verdicts")}


def _trainings(comparison: Record) -> list[Record]:
    """Return the trainings under each protocol."""
    first = comparison.get("training")
    return [first, *first.get("also", [])] if first else []


def _of(rows: Iterable[Record], a: str, b: str) -> list[Record]:
    return [row for row in rows if (row["a"], row["b"]) == (a, b)]


def _by_model(protocols: Iterable[list[Record]]) -> dict[str, str]:
    """Return the outcome under each model, on the tests of all protocols."""
    by_model: dict[str, list[Record]] = {}
    for tests in protocols:
        for test in tests:
            by_model.setdefault(f"under {test['measure'].split()[0]}", []).append(test)
    return {model: agreed(tests) for model, tests in by_model.items()}


def _training(training: Record) -> Table:
    figure = next(key for key in training if "@" in key)
    rows = [
        [model, name, with_error(v["mean"], v["sd"])]
        for model, by_set in training[figure].items()
        for name, v in by_set.items()
    ]
    note = (
        f"Test figures at the best valid epoch, mean ± standard deviation over {training['seeds']} seeds; protocol "
        f"{training['protocol']} ({training['fingerprint']})."
    )
    return Table("Trained recommenders", note, ["model", "feature set", figure], rows, texts=2)


def _paired(heading: str, unit: str, rows: Sequence[Record]) -> Table:
    tests = [Difference.of(row) for row in rows]
    cells = [
        [row["measure"], row["a"], row["b"], *test.cells[:2], p_value(test.p), test.cells[2]]
        for row, test in zip(rows, tests, strict=True)
    ]
    note = (
        f"The same {unit} under both sets; 95 % interval of the mean difference and p by paired bootstrap; the last "
        f"column is p corrected (Holm) for all rows. {FLOORED}"
    )
    return Table(heading, note, ["measure", "a", "b", "a - b", "95 % interval", "p", "p, Holm"], cells, texts=3)
