"""Figures as tables of text, the same for index.html and report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.evaluation.evidence import statuses
from pipeline.evaluation.statistics import FLOOR, RESAMPLES
from pipeline.probe.base import Probe
from pipeline.probe.registry import PROBES
from pipeline.report.markdown import probe_remark, verdict_sentences, with_error

CONTROLS = ("random", "shuffled", "constant")
FLOORED = f"≤ marks a p that could not be smaller with {RESAMPLES:,} resamples."
REASONS = 20
"""reasons listed, most frequent first"""
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of text. Cells come from data and are not escaped yet."""

    heading: str
    note: str
    head: list[str]
    rows: list[list[str]]
    texts: int = 1
    """columns from the left that hold words; the others hold figures, aligned right"""
    best: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of highlighted figures: the best of a column, or significant ones"""
    heat: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """(row, column) -> 0 .. 1, strength of the cell's tint"""


def probes(figures: Record | None) -> list[Table]:
    """Return a table a probe; that of a skipped one has no rows."""
    if not figures:
        return []
    processed, verdicts = figures.get("processed", {}), figures.get("verdicts", [])
    return [
        _probe(
            figures[key], processed.get(key), probe, verdict_sentences([v for v in verdicts if v["probe"] == key])
        )
        for key, probe in PROBES.items() if key in figures
    ]  # fmt: skip


def quality(what: str, status: pa.ChunkedArray, reason: pa.ChunkedArray | None, note: str) -> Table:
    """Return how many items ended with which status, and why where a reason is known."""
    if reason is None:
        rows = [[word, f"{n:,}", f"{n / len(status):.1%}"] for word, n in statuses(status).items()]
        return Table(what, note, ["status", "items", "share"], rows)
    pairs = pa.chunked_array([[f"{s}\n{r}" for s, r in zip(status.to_pylist(), reason.to_pylist(), strict=True)]])
    counted = list(statuses(pairs).items())
    rows = [[*pair.split("\n", 1), f"{n:,}", f"{n / len(status):.1%}"] for pair, n in counted[:REASONS]]
    if rest := sum(n for _, n in counted[REASONS:]):
        rows.append(["others", f"{len(counted) - REASONS} more reasons", f"{rest:,}", f"{rest / len(status):.1%}"])
    return Table(what, note, ["status", "reason", "items", "share"], rows, texts=2)


def sweep(where: str, effects: Sequence[Record]) -> list[Table]:
    """Return a heat map for each pair of settings: the best valid Recall@20 at each pair of values.

    Args:
        where: model, features and kind of the sweep.
        effects: rows of settings ("lr, cca"), x, y, valid, trials.
    """
    maps = []
    for pair in dict.fromkeys(row["settings"] for row in effects):
        cells = {(row["x"], row["y"]): row for row in effects if row["settings"] == pair}
        xs, ys = (sorted({key[axis] for key in cells}, key=float) for axis in (0, 1))
        values = [row["valid"] for row in cells.values()]
        low, high = min(values), max(values)
        tint = {
            (r, 1 + c): (cells[x, y]["valid"] - low) / ((high - low) or 1.0)
            for r, y in enumerate(ys) for c, x in enumerate(xs) if (x, y) in cells
        }  # fmt: skip
        first, second = pair.split(", ")
        maps.append(
            Table(
                f"{where}: {first} (across) and {second} (down)",
                "",
                ["", *xs],
                [[y, *(f"{cells[x, y]['valid']:.3f}" if (x, y) in cells else "" for x in xs)] for y in ys],
                heat=tint,
            )
        )
    return maps


def drops(records: Sequence[Record]) -> Table | None:
    """Return the dropped or incomplete rows of each stage, by reason."""
    rows = [[r["stage"], reason, f"{n:,}"] for r in records for reason, n in r["drops"].items()]
    note = "As counted by each stage."
    return Table("Dropped or incomplete rows", note, ["stage", "reason", "rows"], rows, texts=2) if rows else None


def stages(records: Sequence[Record]) -> Table | None:
    """Return time and memory of every stage."""
    if not records:
        return None
    kinds = " and ".join(dict.fromkeys(r["machine"] for r in records))
    return Table(
        "By stage",
        f"As each stage recorded when it last ran, on {kinds}. Peak memory is of the process and its largest child.",
        ["stage", "device", "seconds", "rows in", "rows out", "peak MiB"],
        [
            [r["stage"], r["device"], f"{r['seconds']:.1f}", f"{r['rows_in']:,}", f"{r['rows_out']:,}",
             f"{r['peak_memory_mib']:,}"]
            for r in records
        ],
        texts=2,
    )  # fmt: skip


def p_value(p: float, corrected: float | None = None) -> str:
    """Return p, or what a correction makes of it; ≤ where p itself is the smallest that the resamples can give."""
    return ("≤ " if p <= FLOOR else "") + f"{p if corrected is None else corrected:.2g}"


def metric_name(name: str) -> str:
    """Return a metric's name in texts."""
    return {"recall": "Recall", "ndcg": "NDCG"}.get(name, name)


def _probe(raw: Record, processed: Record | None, probe: Probe, verdicts: str) -> Table:
    """Return a probe's figures, best first; below those of raw features those of processed ones, if they are known."""
    if "skipped" in raw:
        return Table(probe.title, f"Not measured: {raw['skipped']}.", [], [])
    columns = [c for c in raw["chance"] if not c.endswith("_se")]
    texts = 1 if processed is None else 2
    rows: list[list[str]] = []
    best: set[tuple[int, int]] = set()
    for features, figures in (("raw", raw), *([("processed", processed)] if processed else [])):
        sets = {name: v for name, v in figures.items() if isinstance(v, dict) and "skipped" not in v}
        ordered = sorted(sets, key=lambda name: (name == "chance", -sets[name][columns[len(columns) // 2]]))
        for j, c in enumerate(columns, start=texts):
            best.add((len(rows) + max(range(len(ordered)), key=lambda i: sets[ordered[i]][c]), j))
        for name in ordered:
            cells = (with_error(sets[name][c], sets[name].get(f"{c}_se")) for c in columns)
            rows.append([name, features, *cells] if processed else [name, *cells])
    note = probe.note.format(n=next(v for v in raw.values() if isinstance(v, int)))
    return Table(
        probe.title,
        " ".join(text for text in (note, probe_remark(raw), verdicts) if text),
        ["feature set", *(["features"] if processed else []), *columns],
        rows,
        texts=texts,
        best=frozenset(best),
    )
