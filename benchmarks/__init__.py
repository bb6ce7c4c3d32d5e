"""Benchmarks against reference implementations: `make bench`, or `python -m benchmarks [name ...]`.

Each public module is a benchmark and defines `run() -> Measurement`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignrec.pipeline.io import write_json
from alignrec.pipeline.runtime.machine import machine_facts
from benchmarks._turns import Spread, Way, advice, short

RESULTS = Path(__file__).parent / "results"


class Absent(Exception):
    """Missing data or package that the project does not install; the message says how to get it."""


@dataclass(frozen=True)
class Measurement:
    """Result of a benchmark: several implementations ("ways") of the same work, timed in turns."""

    ways: Mapping[str, Way[Any]]
    ours: str  # name of our implementation
    reference: str  # name of the baseline
    unit: str  # unit of the figures and of the limit, such as `items/s` or `s/epoch`
    higher_is_better: (
        bool  # throughput (work per wall second) rather than time (wall seconds per work)
    )
    limit: float  # hardware limit in the same unit, measured or computed on this machine
    limit_is: str  # what sets the limit, such as GEMM rate, memory bandwidth or disk
    what: str  # description of the work and of the reference
    details: dict[str, Any] = field(default_factory=dict)

    def figure(self, name: str) -> float:
        """Return the median over rounds, in `unit`."""
        way = self.ways[name]
        return way.work / way.wall.median if self.higher_is_better else way.wall.median / way.work

    def ratio(self, name: str, seconds: str = "wall") -> Spread:
        """Return the speedup over the reference, in `wall` or `cpu` seconds."""
        return self.ways[name].times_as_fast(self.ways[self.reference], seconds)

    @property
    def share_of_limit(self) -> float:
        """Fraction of the hardware limit that our implementation reaches, 0 .. 1."""
        ours = self.figure(self.ours)
        return ours / self.limit if self.higher_is_better else self.limit / ours


def save(name: str, m: Measurement) -> Path:
    """Write all rounds to benchmarks/results/<name>.json and return its path."""
    path = RESULTS / f"{name}.json"
    facts = {key: value for key, value in vars(m).items() if key != "ways"}
    ways = {way: _record(m, way) for way in m.ways}
    write_json(
        path, facts | {"share_of_limit": m.share_of_limit, "ways": ways, "machine": machine_facts()}
    )
    return path


def _record(m: Measurement, name: str) -> dict[str, Any]:
    way = m.ways[name]
    return {
        "figure": m.figure(name),
        "ratio": m.ratio(name)._asdict(),
        "cpu_ratio": m.ratio(name, "cpu")._asdict(),
        "wall_s": [turn.wall for turn in way.turns],
        "cpu_s": [turn.cpu for turn in way.turns],
        "work": way.work,
        "advice": advice(way),
    }


def lines(name: str, m: Measurement) -> list[str]:
    """Return a table for the terminal, followed by the limit and notes on noisy figures."""
    rows: list[tuple[str, ...]] = [
        ("way", m.unit, "wall s/turn", "CPU s/turn", "ratio by wall s", "ratio by CPU s")
    ]
    for label, way in m.ways.items():
        ratios = (
            ["1", "1"]
            if label == m.reference
            else [str(m.ratio(label, seconds)) for seconds in ("wall", "cpu")]
        )
        rows.append((label, short(m.figure(label)), str(way.wall), str(way.cpu), *ratios))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [
        f"{name}: {m.what}.",
        f"Median (smallest .. largest) of {len(m.ways[m.ours].turns)} rounds; ratio: times as fast as {m.reference}.",
        *table,
        f"{m.ours} reaches {m.share_of_limit:.0%} of {short(m.limit)} {m.unit}: {m.limit_is}.",
        *(f"{label}: {said}." for label, way in m.ways.items() if (said := advice(way))),
    ]
