"""The article's study, mask modality and sweeps of settings; and the quality of semantic IDs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.benchmark import summaries
from pipeline.evaluation.evidence import collect
from pipeline.report import tail, words
from pipeline.report.table import BEST, Table
from pipeline.report.words import RECALL, figure, with_error

Record = Mapping[str, Any]
CODES = ("collide", "neighbours")  # figures of semantic IDs


def masked(mask: pa.Table) -> list[Table]:
    return [
        Table(
            "Mask modality",
            f"{words.protocol(rows[0]._asdict())} AlignRec retrained with the image, or the text, of a "
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
    parts = {"mask": masked, "tail": tail.leads}
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
