"""Run all stages on generated catalogues of several sizes to measure how time and memory scale.

`--items 100000,1000000,3000000` names the sizes. Images and the encoder are small, so that networks do not dominate.
A million items take one to two hours, and 10 GB in FOLDER, where an interrupted run resumes.

With the seconds and MiB of each stage come their exponents: the slopes of the lines through the logarithms of sizes and
figures, by least squares, and what LARGER items take on these lines. Figures include the start of a process, which
hides the growth of stages that take seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.runtime.layout import Layout
from alignrec.stages.order import IN_ORDER
from benchmarks import Measurement, _catalogue, _turns
from benchmarks._turns import Way, short

SIZES = (100_000, 1_000_000)  # items
LARGER = 10_000_000  # items whose cost is computed
ITEMS_PER_BATCH = 10_000  # of the batches that share a propagation over the graph
FOLDER = Path(tempfile.gettempdir()) / "alignrec-million"
DATASET, ENCODER = "shop", "tfidf"
SETTINGS: dict[str, Any] = {
    "interactions": {"user_core": 1, "item_core": 1},
    "encode": {"encoders": [ENCODER], "shard_rows": 4096},
    "pretrain": {"size": "small", "steps": 20, "distill": 0, "codes": 32},
    "beit3": {"sets": ["beit3"]},
    "combine": {"sets": {}, "controls": ["random"]},
    "graph": {"exact_up_to": 10_000},
    "semantic_ids": {"codes": 64},
    "benchmark": {"models": ["lightgcn"], "features": ["beit3"], "seeds": 1, "workers": 1},
    "study": {"mask": {"ratios": []}, "workers": 1},
}


class Cost(NamedTuple):
    """Cost of a stage, including its start."""

    cpu: float  # seconds of all threads and processes
    wall: float  # seconds
    mib: float  # peak resident size, with mapped files
    own: float  # peak without mapped files, MiB


class Line(NamedTuple):
    """A line through logarithms of sizes and figures."""

    exponent: float
    larger: float  # the figure at LARGER items


class Curve(NamedTuple):
    """How the cost of a stage grows, and what LARGER items take."""

    cpu_exponent: float
    cpu: float  # seconds at LARGER items
    own_exponent: float
    own: float  # MiB at LARGER items


def run(arguments: Sequence[str] = ()) -> Measurement:
    """Run all stages at each size, each in a process."""
    sizes = parse_sizes(arguments)
    ways: dict[str, Way[dict[str, Cost]]] = {}
    costs_of_sizes: dict[int, dict[str, Cost]] = {}
    for items in sizes:
        costs = run_size(items)
        costs_of_sizes[items] = costs
        wall = sum(cost.wall for cost in costs.values())
        cpu = sum(cost.cpu for cost in costs.values())
        ways[f"{items:,} items"] = Way([_turns.Turn(wall, cpu, costs)], items)

    curves = fit_stages(costs_of_sizes)
    print("\n".join([*table_lines(costs_of_sizes), "", *curve_lines(curves)]))
    shutil.rmtree(FOLDER)

    first = f"{sizes[0]:,} items"
    last = f"{sizes[-1]:,} items"
    stages: dict[str, Any] = {}
    for name, way in ways.items():
        stages[name] = {stage: cost._asdict() for stage, cost in way.last.items()}
    return Measurement(
        ways=ways,
        ours=last,
        reference=first,
        unit="items/s",
        higher_is_better=True,
        limit=ways[first].work / ways[first].wall.median,
        limit_is=f"the rate at {first}, which linear scaling would keep",
        what="all stages on generated catalogues, each in a process of its own, including its start",
        details={
            "stages": stages,
            "curves": {name: curve._asdict() for name, curve in curves.items()},
            "larger": LARGER,
        },
    )


def parse_sizes(arguments: Sequence[str]) -> list[int]:
    """Return the sizes of `--items`, ascending; the program ends with a line if they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks million")
    parser.add_argument("--items", help="sizes, at least two, such as 100000,1000000")
    given = parser.parse_args(arguments).items
    if given is None:
        return list(SIZES)

    texts = given.split(",")
    sizes = sorted({int(text) for text in texts if text.isdecimal()})
    if len(sizes) < max(2, len(texts)) or sizes[0] < 1:
        parser.error(f"--items {given}: expected two or more different sizes, such as 300,1000")
    return sizes


def run_size(items: int) -> dict[str, Cost]:
    """Run all stages on a catalogue of a size, which is generated unless it is there."""
    folder = FOLDER / str(items)
    if not folder.is_dir():
        begun = FOLDER / f".{items}"
        shutil.rmtree(begun, ignore_errors=True)
        _catalogue.write(begun, items)
        begun.rename(folder)

    together = max(1, items // ITEMS_PER_BATCH)
    train = {"epochs": 1, "mode": "frozen", "accumulate": together}
    return run_stages(folder, SETTINGS | {"train": train})


def run_stages(folder: Path, settings: dict[str, Any]) -> dict[str, Cost]:
    """Run the stages whose costs are not yet recorded in the folder, and return all costs."""
    root, params, kept = folder / "outputs", folder / "params.yaml", folder / "costs.json"
    params.write_text(json.dumps(parameters(folder, settings)))
    costs: dict[str, Any] = io.read_json(kept) if kept.is_file() else {}
    for stage in IN_ORDER:
        if stage.name in costs:
            continue
        command = [
            sys.executable,
            "-m",
            "alignrec",
            stage.name,
            DATASET,
            "--params",
            str(params),
            "--root",
            str(root),
        ]
        turn = _turns.timed(subprocess.run, command)
        if turn.result.returncode:
            sys.exit(f"{stage.name} failed in {folder}; its last lines above say why")
        record = io.read_json(Layout(root, DATASET).cost(stage.name, ENCODER if stage.per else ""))
        cost = Cost(turn.cpu, turn.wall, record["peak_memory_mib"], record["own_memory_mib"] or 0)
        costs[stage.name] = cost._asdict()
        io.write_json(kept, costs)
    return {name: Cost(**figures) for name, figures in costs.items()}


def parameters(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    files = {
        "interactions": str(folder / _catalogue.INTERACTIONS),
        "items": str(folder / _catalogue.ITEMS),
    }
    images = {"folder": str(folder / _catalogue.IMAGES), "pattern": "{item}.jpg"}
    return {
        "datasets": [DATASET],
        "sources": {DATASET: {"kind": "tabular", "timestamps": "order", **files}},
        "images": images,
        **settings,
    }


def table_lines(costs_of_sizes: dict[int, dict[str, Cost]]) -> list[str]:
    """Return the cost of each stage at each size as a Markdown table."""
    sizes = [f"{items:,}" for items in costs_of_sizes]
    head = ["stage"]
    for what in ("CPU s", "s", "MiB", "own MiB"):
        head += [f"{what}, {size}" for size in sizes]

    rows = [head, ["---"] * len(head)]
    for stage in next(iter(costs_of_sizes.values())):
        costs = [costs_of_stages[stage] for costs_of_stages in costs_of_sizes.values()]
        row = [stage]
        for field in Cost._fields:
            row += [short(getattr(cost, field)) for cost in costs]
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def fit_stages(costs_of_sizes: dict[int, dict[str, Cost]]) -> dict[str, Curve]:
    """Return the curve of each stage, and of all: their sum of seconds and their largest memory."""
    sizes = list(costs_of_sizes)
    curves: dict[str, Curve] = {}
    for stage in costs_of_sizes[sizes[0]]:
        costs = [costs_of_sizes[items][stage] for items in sizes]
        seconds = fit([cost.cpu for cost in costs], sizes)
        memory = fit([cost.own for cost in costs], sizes)
        curves[stage] = Curve(seconds.exponent, seconds.larger, memory.exponent, memory.larger)

    total = sum(curve.cpu for curve in curves.values())
    largest = max(curve.own for curve in curves.values())
    sums = [sum(cost.cpu for cost in costs_of_sizes[items].values()) for items in sizes]
    peaks = [max(cost.own for cost in costs_of_sizes[items].values()) for items in sizes]
    curves["all"] = Curve(fit(sums, sizes).exponent, total, fit(peaks, sizes).exponent, largest)
    return curves


def fit(figures: Sequence[float], sizes: Sequence[int]) -> Line:
    """Fit a line to logarithms by least squares."""
    # a stage may take less than the clock or the sampler resolves
    least = np.maximum(figures, 1e-3)
    slope, intercept = np.polyfit(np.log(sizes), np.log(least), 1)
    return Line(float(slope), float(np.exp(intercept + slope * np.log(LARGER))))


def curve_lines(curves: dict[str, Curve]) -> list[str]:
    """Return exponents, and the costs computed from them, as a Markdown table."""
    larger = f"{LARGER:,}"
    head = (
        f"| stage | exponent of CPU s | CPU s, {larger} | exponent of own MiB | own MiB, {larger} |"
    )
    rows = [head, "|---|---|---|---|---|"]
    for stage, curve in curves.items():
        seconds = f"{curve.cpu_exponent:.2f} | {short(curve.cpu)}"
        memory = f"{curve.own_exponent:.2f} | {short(curve.own)}"
        rows.append(f"| {stage} | {seconds} | {memory} |")
    return rows
