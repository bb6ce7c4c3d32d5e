"""Compare `alignrec plan` with what runs took: `python -m benchmarks._plan [DATASET...]`, after `dvc repro`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alignrec.commands import estimate
from alignrec.commands.machine import Machine, measure_machine
from alignrec.commands.params import load, read
from alignrec.commands.plan import format_bytes, format_duration
from alignrec.commands.size import read_size
from alignrec.commands.workload import Workload
from alignrec.pipeline import io
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from benchmarks import RESULTS

FACTOR = 1.5  # within which a plan is right
SHORTEST = 15.0  # seconds of a stage below which the start of a process decides
MIB = 1 << 20
BEFORE = Path("outputs of no run")  # without records of earlier runs, as `plan` finds a new project


class Row(NamedTuple):
    """Planned and actual cost of a stage."""

    dataset: str
    stage: str
    planned: float  # seconds
    took: float
    planned_memory: float  # bytes
    used: float

    @property
    def ratio(self) -> float:
        return self.planned / self.took

    @property
    def is_judged(self) -> bool:
        return self.stage == "all" or max(self.planned, self.took) >= SHORTEST

    def line(self) -> str:
        seconds = f"{format_duration(self.planned)} | {format_duration(self.took)}"
        memory = f"{format_bytes(self.planned_memory)} | {format_bytes(self.used)}"
        ratio = f"{self.ratio:.2f}" if self.is_judged else ""
        return f"| {self.dataset} | {self.stage} | {seconds} | {ratio} | {memory} |"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="plan", description=__doc__.partition("\n")[0])
    parser.add_argument("datasets", nargs="*", help="by default all of the parameters")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--root", type=Path, default=Path("outputs"))
    parser.add_argument(
        "--counted", action="store_true", help="plan for the size that the run has counted"
    )
    options = parser.parse_args(arguments)
    machine = measure_machine()
    rows: list[Row] = []
    for dataset in options.datasets or read(options.params).datasets:
        layout = Layout(options.root, dataset)
        sized = layout if options.counted else Layout(BEFORE, dataset)
        rows += compare(load(options.params, dataset), layout, machine, sized)
    if not rows:
        sys.exit(f"plan: no cost.json in {options.root}; run `dvc repro` first")

    print(machine)
    print("| dataset | stage | planned | took | ratio | planned memory | used |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(row.line())
    io.write_json(
        RESULTS / "plan.json", {"machine": str(machine), "stages": [row._asdict() for row in rows]}
    )
    wrong = [row for row in rows if row.is_judged and not 1 / FACTOR <= row.ratio <= FACTOR]
    print(f"{len(wrong)} of {sum(row.is_judged for row in rows)} not within a factor of {FACTOR}")


def compare(params: Parameters, layout: Layout, machine: Machine, sized: Layout) -> list[Row]:
    """Return a row per stage that has run here, and one of their sums; `sized` has the counts."""
    size = read_size(params, sized)
    work = Workload(params, layout.dataset, size, machine.gemm)
    rows = []
    for stage, cost in estimate.estimate_stages(work).items():
        costs = list(read_costs(params, layout, stage))
        if not costs:
            continue
        took = sum(seconds + estimate.START_SECONDS for seconds, _ in costs)
        used = max(memory for _, memory in costs)
        rows.append(Row(layout.dataset, stage, cost.seconds, took, cost.memory, used))
    if rows:
        planned = sum(row.planned for row in rows)
        took = sum(row.took for row in rows)
        memory = max(row.planned_memory for row in rows)
        used = max(row.used for row in rows)
        rows.append(Row(layout.dataset, "all", planned, took, memory, used))
    return rows


def read_costs(params: Parameters, layout: Layout, stage: str) -> Iterator[tuple[float, float]]:
    """Yield seconds and peak bytes of each process of a stage."""
    items = params[Encode].encoders if stage == "encode" else [""]
    for item in items:
        path = layout.cost(stage, item)
        if path.is_file():
            cost = io.read_json(path)
            yield cost["seconds"], (cost["peak_memory_mib"] or 0) * MIB


if __name__ == "__main__":
    main(sys.argv[1:])
