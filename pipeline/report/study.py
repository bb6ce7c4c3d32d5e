"""The article's study: mask modality, sweeps of settings and the long tail; and the quality of semantic IDs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmark import summaries
from pipeline.evaluation.cutoff import CUTOFF, headline
from pipeline.evaluation.evidence import Comparison, collect, seeds_of
from pipeline.evaluation.statistics import LEVEL
from pipeline.report.recommenders import equal
from pipeline.report.table import BEST, CONTROLS, RECALL, Difference, Table, figure, protocol_note, run_name, with_error

Record = Mapping[str, Any]
CODES = ("collide", "neighbours")  # figures of semantic IDs


def masked(mask: pa.Table) -> list[Table]:
    return [
        Table(
            "Mask modality",
            f"{protocol_note(rows[0]._asdict())} AlignRec retrained with the image, or the text, of a "
            "share of the items masked. Mean ± standard deviation over seeds; the change is taken seed by seed.",
            ["feature set", "items", f"test {RECALL}", "change"],
            [[row.features, row.items, figure(row.recall), figure(row.change, "+.1%")] for row in rows],
            texts=2,
        )
        for _, rows in summaries.by_protocol(summaries.masked(mask))
    ]


def sweep_points(curves: Sequence[Record]) -> list[Table]:
    points = [
        [row["sweep"], row["key"], f"{row['value']:.4g}", str(row["seeds"]),
         with_error(row[summaries.RECALL], row["sd"])]
        for row in curves
    ]  # fmt: skip
    best: dict[str, int] = {}
    for i, row in enumerate(curves):
        if row["sweep"] not in best or row[summaries.RECALL] > curves[best[row["sweep"]]][summaries.RECALL]:
            best[row["sweep"]] = i
    head = ["sweep", "key", "value", "seeds", f"valid {RECALL}"]
    marked = dict.fromkeys(((i, 4) for i in best.values()), BEST)
    heading = "One setting at a time"
    return [Table(heading, "The best of each sweep is marked.", head, points, texts=2, marks=marked)] if points else []


def heatmaps(cells: Sequence[Record]) -> list[Table]:
    by_map = collect((row["map"], row) for row in cells)
    return [_heatmap(name.partition(":")[0], rows) for name, rows in by_map.items()]


def _heatmap(where: str, cells: Sequence[Record]) -> Table:
    valid = {(row["x"], row["y"]): row["valid"] for row in cells}
    xs, ys = (sorted({key[axis] for key in valid}, key=float) for axis in (0, 1))
    low, high = min(valid.values()), max(valid.values())
    tint = {
        (r, 1 + c): (valid[x, y] - low) / ((high - low) or 1.0)
        for r, y in enumerate(ys) for c, x in enumerate(xs) if (x, y) in valid
    }  # fmt: skip
    rows = [[y, *(f"{valid[x, y]:.3f}" if (x, y) in valid else "" for x in xs)] for y in ys]
    first, second = cells[0]["settings"].split(", ")
    return Table(f"{where}: {first} (across) and {second} (down)", "", ["", *xs], rows, heat=tint)


def summed(study: Mapping[str, pa.Table]) -> list[Table]:
    parts = {"mask": masked, "tail": leads}
    return [table for part, of in parts.items() if part in study for table in of(study[part])]


def semantic_ids(quality: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Table]:
    """Return the figures of each feature set's codes and of the control, see pipeline/semantic_ids/judge.py."""
    note = (
        "Collide: share of items that have all codes of another, which a suffix separates. Neighbours: how often an "
        "item and a nearest neighbour share the first code. Useful codes must beat random ones in the latter."
    )
    rows = [
        [f"{name}, random codes" if method == "random" else name, *(f"{figures[key]:.1%}" for key in CODES)]
        for name, methods in quality.items()
        for method, figures in methods.items()
    ]
    return [Table("Semantic IDs", note, ["codes", *CODES], rows, texts=1)] if rows else []


SLICES = {
    "popularity": "Targets by popularity of the item in train: tenths from the least (1) to the most popular (10), or "
    "thirds where a tenth has few targets; cold items have no train interaction.",
    "history": "Test users by the number of their train interactions.",
}
OF = {"popularity": "targets", "history": "users"}

Run = tuple[str, str]  # model, features
Sliced = dict[Run, dict[tuple[str, str, str], tuple[int, float | None]]]
"""run -> (slice, label, metric) -> n, and the mean over seeds (None where n is 0)"""
Groups = Mapping[Run, Mapping[str, tuple[float, float, float]]]  # run -> label of a group -> low end, mean, high end


def sliced(slices: pa.Table | None, judged: Comparison) -> tuple[int, Sliced]:
    """Return the headline cutoff of table SLICES, and its figures there, without controls and ablations."""
    if slices is None or not len(slices):
        return CUTOFF, {}
    k = headline(pc.unique(slices["k"]).to_pylist())
    kept = slices.filter(equal({"fingerprint": judged.fingerprint, "ablation": "", "k": k}))
    by_run = collect(((row["model"], row["features"]), row) for row in kept.to_pylist())
    figures: Sliced = {}
    for run in ((r.model, r.features) for r in judged.rows if (r.model, r.features) in by_run):
        if run[1] not in CONTROLS:
            seeds = collect(((r["slice"], r["label"], r["metric"]), (r["n"], r["value"])) for r in by_run[run])
            figures[run] = {key: (v[0][0], _mean([x for _, x in v])) for key, v in seeds.items()}
    return k, figures


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def groups(tail: pa.Table, judged: Comparison, which: str) -> Groups:
    """Return the recall of each group with its interval, of table TAIL, best Recall@20 first."""
    rows = tail.filter(equal({"fingerprint": judged.fingerprint, "slice": which})).to_pylist()
    order = {(r.model, r.features): at for at, r in enumerate(judged.rows)}
    found: dict[Run, dict[str, tuple[float, float, float]]] = {}
    for row in rows:
        span = row["mean_low"], row["mean"], row["mean_high"]
        found.setdefault((row["model"], row["features"]), {})[row["label"]] = span
    return dict(sorted(found.items(), key=lambda one: order.get(one[0], len(order))))


def means(slices: Sliced, which: str, k: int) -> Iterator[Table]:
    first = next(iter(slices.values()), {})
    labels = [label for (kind, label, metric), (n, _) in first.items() if (kind, metric) == (which, "recall") and n]
    if labels:
        sizes = [OF[which], *(f"{first[which, label, 'recall'][0]:,}" for label in labels)]
        rows = [
            [run_name(*run), *(_text(cells.get((which, label, "recall"))) for label in labels)]
            for run, cells in slices.items()
        ]
        yield Table(f"Recall@{k} by {which}", f"{SLICES[which]} Means over seeds.", ["run", *labels], [sizes, *rows])


def catalogue(slices: Sliced, k: int) -> Iterator[Table]:
    rows = []
    for run, cells in slices.items():
        if ("catalogue", "all", "coverage") in cells:
            exposed = [cells.get(("popularity", str(part), "exposure"), (0, None))[1] or 0.0 for part in range(11)]
            rows.append([
                run_name(*run), f"{cells['catalogue', 'all', 'coverage'][1]:.1%}",
                _text(cells.get(("catalogue", "all", "gini")), 3),
                _text(cells.get(("catalogue", "all", "novelty")), 2), f"{exposed[10]:.1%}", f"{sum(exposed[1:6]):.1%}",
            ])  # fmt: skip
    note = (
        f"Of the top {k} of all test users, means over seeds. Coverage: share of the catalogue that is recommended. "
        "Gini: of how often each item is recommended, 0 if all alike. "
        "Novelty: mean of -log2(share of users who have the item). Exposure: share of places of the tenth of items "
        "with the most train interactions, and of the half with the fewest."
    )
    head = ["run", "coverage", "Gini", "novelty, bits", "exposure: top tenth", "exposure: lower half"]
    if rows:
        yield Table("What is recommended", note, head, rows)


def _text(cell: tuple[int, float | None] | None, decimals: int = 4) -> str:
    return "" if cell is None or cell[1] is None else f"{cell[1]:.{decimals}f}"


def leads(tail: pa.Table) -> list[Table]:
    """Return AlignRec's lead on the released features over each other run but controls, by group."""
    rows = [row for row in tail.to_pylist() if row["difference"] is not None and row["features"] not in CONTROLS]
    several = len({row["protocol"] for row in rows}) > 1
    by_slice = collect(((row["fingerprint"], row["slice"]), row) for row in rows).values()
    return [_leads(own).under(own[0]["protocol"] if several else "") for own in by_slice]


def _leads(rows: Sequence[Mapping[str, Any]]) -> Table:
    labels = {row["label"]: f"{row['n']:,}" for row in rows}
    by_run = collect((run_name(row["model"], row["features"]), row) for row in rows)
    cells = [["n", *labels.values()]]
    marks: dict[tuple[int, int], str] = {}
    for r, (run, own) in enumerate(by_run.items(), start=1):
        tests = {row["label"]: Difference.of(row) for row in own}
        marks |= {(r, c): tests[at].mark for c, at in enumerate(labels, start=1) if at in tests and tests[at].sure}
        cells.append([run, *(_lead(tests.get(label)) for label in labels)])
    which = rows[0]["slice"]
    note = (
        f"{protocol_note(rows[0])} {SLICES[which]} What AlignRec on the released features has more, "
        f"Recall@{rows[0]['k']} on test, mean over {seeds_of(row['seeds'] for row in rows)}; 95 % intervals of the "
        f"bootstrap; marked where p is below {LEVEL} after Holm's correction for all of these tests."
    )
    return Table(f"AlignRec's lead by {which}", note, ["run", *labels], cells, marks=marks)


def _lead(test: Difference | None) -> str:
    return "" if test is None else f"{test.middle:+.4f} ({test.low:+.4f} .. {test.high:+.4f})"
