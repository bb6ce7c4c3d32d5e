"""The study: mask modality, variants of pre-training, sweeps of settings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.evaluation.cutoff import headline
from pipeline.evaluation.evidence import collect
from pipeline.evaluation.statistics import LEVEL
from pipeline.models import RELEASED
from pipeline.probe.registry import PROBES
from pipeline.report import argument, tail, words
from pipeline.report.difference import BEST, FLOORED, Difference
from pipeline.report.table import CHANGE, Table, mean
from pipeline.report.words import RECALL, figure, measure, with_error
from pipeline.study import summaries

Record = Mapping[str, Any]


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


def variants(table: pa.Table) -> list[Table]:
    """Return table VARIANTS as two tables: AlignRec on the features of each, and the probes; none for an empty one."""
    rows = _last(table)
    return [*_model_tables(recommended(table)), *_probe_tables([row for row in rows if row["what"] != RELEASED])]


def recommended(table: pa.Table) -> list[Record]:
    recall = [row for row in _last(table) if (row["what"], row["metric"]) == (RELEASED, "recall")]
    return _at_headline(recall)


def variant(row: Record, rows: Sequence[Record]) -> str:
    parts = [row["variant"]]
    parts += [row[key] for key in ("features", "protocol") if len({other[key] for other in rows}) > 1]
    return ", ".join(parts)


def _last(table: pa.Table) -> list[Record]:
    """Return the rows of table VARIANTS; of several encoders of a variant the last one, which covers all."""
    keys = ("variant", "what", "features", "form", "metric", "k", "protocol")
    return list({tuple(row[key] for key in keys): row for row in table.to_pylist()}.values())


def _at_headline(rows: Sequence[Record]) -> list[Record]:
    k = headline([row["k"] for row in rows]) if rows else 0
    return [row for row in rows if row["k"] == k]


def _model_tables(rows: Sequence[Record]) -> Iterator[Table]:
    if not rows:
        return
    several = len({row["protocol"] for row in rows}) > 1
    yield Table.of(
        "AlignRec on the encoder of each variant",
        f"{' '.join(dict.fromkeys(map(words.protocol, rows)))} Test figures, mean ± standard deviation over "
        "trainings. The change is against `recipe`, the parameters as they stand; its interval is over users (95 %), "
        f"p is Holm's. {FLOORED}",
        ["variant", "features", "trainings", measure("recall", rows[0]["k"]), *CHANGE],
        [
            [words.after(r["variant"], r["protocol"] if several else "", ", "), r["features"], str(r["seeds"]), mean(r),
             Difference.if_any(r)]
            for r in rows
        ],
        texts=2,
    )  # fmt: skip


def _probe_tables(rows: Sequence[Record]) -> Iterator[Table]:
    own = _at_headline(rows)
    if not own:
        return
    probes = list(dict.fromkeys((row["what"], row["metric"]) for row in own))
    lines = list(dict.fromkeys((row["variant"], row["features"], row["form"]) for row in own))
    cells = {(row["variant"], row["features"], row["form"], row["what"]): row for row in own}
    marks = {
        (r, 3 + c): change.mark
        for r, line in enumerate(lines) for c, (what, _) in enumerate(probes)
        if (change := Difference.if_any(cells.get((*line, what)))) and change.sure
    }  # fmt: skip
    yield Table(
        "Probes of each variant",
        "Judged without a recommender, raw and after the same processing; the change against `recipe` is in "
        f"brackets, marked where p is below {LEVEL} after Holm's correction.",
        ["variant", "features", "form", *(f"{PROBES[what].name} {metric}@{own[0]['k']}" for what, metric in probes)],
        [[*line, *(_with_change(cells.get((*line, what))) for what, _ in probes)] for line in lines],
        texts=3,
        marks=marks,
    )


def _with_change(row: Record | None) -> str:
    if row is None:
        return ""
    return f"{row['mean']:.4f}" + ("" if row["difference"] is None else f" ({row['difference']:+.4f})")


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
    parts = {
        "mask": masked, "wrong": argument.wrong, "geometry": argument.geometry, "joint": argument.joint,
        "tail": tail.tails, "variants": variants,
    }  # fmt: skip
    return [table for part, of in parts.items() if part in study for table in of(study[part])]
