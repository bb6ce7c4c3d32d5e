"""Speed and memory next to a reference, in one run on one machine: `make bench`, or `python -m benchmarks [name ...]`.

A benchmark is a module here with `run() -> Measurement`; the file's name is the benchmark's name. `_turns` times all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignrec.pipeline.harness.versions import machine_facts
from alignrec.pipeline.io import write_json
from benchmarks._turns import Spread, Way, advice, short

RESULTS = Path(__file__).parent / "results"


class Absent(Exception):
    """Data or a package that a benchmark needs and the project does not install; one line with what to do."""


@dataclass(frozen=True)
class Measurement:
    """One comparison of ways that took turns. Figures of a way are medians of its rounds."""

    ways: Mapping[str, Way[Any]]
    ours: str  # which of the ways is measured
    reference: str  # which of them it is measured against
    unit: str  # of the figures and of limit: `items/s`, `s/epoch`, ...
    higher_is_better: bool  # whether figures are work over wall seconds, not wall seconds over work
    limit: float  # the physical limit in the same unit, measured or computed on this machine
    limit_is: str  # what sets the limit and how it was measured: GEMM rate, memory bandwidth, disk
    what: str  # the work, and what the reference is
    details: dict[str, Any] = field(default_factory=dict)

    def figure(self, name: str) -> float:
        """Return a way's figure in `unit`."""
        way = self.ways[name]
        return way.work / way.wall.median if self.higher_is_better else way.wall.median / way.work

    def ratio(self, name: str, seconds: str = "wall") -> Spread:
        """Return how many times as fast as the reference a way is, in `wall` or `cpu` seconds."""
        return self.ways[name].times_as_fast(self.ways[self.reference], seconds)

    @property
    def share_of_limit(self) -> float:
        """Return how much of the physical limit ours reaches, 0 .. 1."""
        ours = self.figure(self.ours)
        return ours / self.limit if self.higher_is_better else self.limit / ours


def save(name: str, m: Measurement) -> Path:
    """Write benchmarks/results/<name>.json, every round in it, and return its path."""
    path = RESULTS / f"{name}.json"
    facts = {key: value for key, value in vars(m).items() if key != "ways"}
    ways = {way: _record(m, way) for way in m.ways}
    write_json(path, facts | {"share_of_limit": m.share_of_limit, "ways": ways, "machine": machine_facts()})
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
    """Return a table of the ways for a terminal, and under it the limit and which figures to trust."""
    rows: list[tuple[str, ...]] = [
        ("way", m.unit, "wall s a turn", "CPU s a turn", "ratio by wall s", "ratio by CPU s")
    ]
    for label, way in m.ways.items():
        ratios = ["1", "1"] if label == m.reference else [str(m.ratio(label, seconds)) for seconds in ("wall", "cpu")]
        rows.append((label, short(m.figure(label)), str(way.wall), str(way.cpu), *ratios))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [
        f"{name}: {m.what}.",
        f"Median (smallest .. largest) of {len(m.ways[m.ours].turns)} rounds; ratio: times as fast as {m.reference}.",
        *table,
        f"{m.ours} reaches {m.share_of_limit:.0%} of {short(m.limit)} {m.unit}: {m.limit_is}.",
        *(f"{label}: {said}." for label, way in m.ways.items() if (said := advice(way))),
    ]
