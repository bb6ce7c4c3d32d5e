"""Run all stages on generated catalogues of several sizes to measure how time and memory scale.

`--items 100000,1000000,3000000` names the sizes, `--users-per-item 1` makes catalogues of as many users as items, and
`--stages download,interactions,items,encode,graph` runs only these. Images and the encoder are small, so that networks
do not dominate. A million items take one to two hours, and 10 GB in FOLDER, where an interrupted run resumes. The cost
of `verify` is that of reading the release which `publish` wrote.

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
from alignrec.pipeline.release.read import Release
from alignrec.pipeline.runtime import process
from alignrec.pipeline.runtime.layout import Layout
from alignrec.stages.order import STAGES
from benchmarks import Measurement, _catalogue, _turns
from benchmarks._turns import Way, short

SIZES = (100_000, 1_000_000)  # items
LARGER = 10_000_000  # items whose cost is computed
USERS_PER_ITEM = 2
ITEMS_PER_BATCH = 10_000  # of the batches that share a propagation over the graph
FOLDER = Path(tempfile.gettempdir()) / "alignrec-million"
DATASET, ENCODER = "shop", "tfidf"
NETWORK_STAGES = ("pretrain", "beit3")
VERIFY = "verify"  # of the release, after `publish`
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


class Options(NamedTuple):
    """What to run."""

    sizes: list[int]  # numbers of items, ascending
    stages: list[str]  # in order
    users_per_item: int


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
    """Run stages at each size, each in a process."""
    sizes, stages, users_per_item = parse_options(arguments)
    ways: dict[str, Way[dict[str, Cost]]] = {}
    costs_of_sizes: dict[int, dict[str, Cost]] = {}
    for items in sizes:
        costs = run_size(items, users_per_item * items, stages)
        costs_of_sizes[items] = costs
        wall = sum(cost.wall for cost in costs.values())
        cpu = sum(cost.cpu for cost in costs.values())
        ways[f"{items:,} items"] = Way([_turns.Turn(wall, cpu, costs)], items)

    curves = fit_stages(costs_of_sizes)
    print("\n".join([*table_lines(costs_of_sizes), "", *curve_lines(curves)]))
    shutil.rmtree(FOLDER)

    first = f"{sizes[0]:,} items"
    last = f"{sizes[-1]:,} items"
    records: dict[str, Any] = {}
    for name, way in ways.items():
        records[name] = {stage: cost._asdict() for stage, cost in way.last.items()}
    return Measurement(
        ways=ways,
        ours=last,
        reference=first,
        unit="items/s",
        higher_is_better=True,
        limit=ways[first].work / ways[first].wall.median,
        limit_is=f"the rate at {first}, which linear scaling would keep",
        what=f"{', '.join(stages)} on generated catalogues, each in a process of its own, including its start",
        details={
            "stages": records,
            "curves": {name: curve._asdict() for name, curve in curves.items()},
            "larger": LARGER,
        },
    )


def parse_options(arguments: Sequence[str]) -> Options:
    """Read options of the command line; the program ends with a line if they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks million")
    parser.add_argument("--items", help="sizes, at least two, such as 100000,1000000")
    parser.add_argument(
        "--stages", help="names of stages, such as download,interactions,items,encode"
    )
    parser.add_argument(
        "--users-per-item", type=int, default=USERS_PER_ITEM, help="users for each item"
    )
    given = parser.parse_args(arguments)

    sizes = list(SIZES)
    if given.items is not None:
        texts = given.items.split(",")
        sizes = sorted({int(text) for text in texts if text.isdecimal()})
        if len(sizes) < max(2, len(texts)) or sizes[0] < 1:
            parser.error(
                f"--items {given.items}: expected two or more different sizes, such as 300,1000"
            )

    stages = list(STAGES)
    if given.stages is not None:
        names = given.stages.split(",")
        unknown = sorted(set(names) - set(stages))
        if unknown:
            parser.error(f"--stages {given.stages}: {unknown[0]} is none of {', '.join(stages)}")
        stages = [stage for stage in stages if stage in names]

    if given.users_per_item < 1:
        parser.error(f"--users-per-item {given.users_per_item}: expected at least 1")
    return Options(sizes, stages, given.users_per_item)


def run_size(items: int, users: int, stages: Sequence[str]) -> dict[str, Cost]:
    """Run stages on a catalogue of a size, which is generated unless it is there."""
    with_images = "images" in stages
    name = f"{items}-{users}"
    folder = FOLDER / (name if with_images else f"{name}-texts")
    if not folder.is_dir():
        begun = FOLDER / f".{folder.name}"
        shutil.rmtree(begun, ignore_errors=True)
        _catalogue.write(begun, items, users, with_images)
        begun.rename(folder)

    together = max(1, items // ITEMS_PER_BATCH)
    train = {"epochs": 1, "mode": "frozen", "accumulate": together}
    settings = SETTINGS | {"train": train}
    if not set(NETWORK_STAGES) <= set(stages):
        settings |= {
            "train": train | {"features": ENCODER},
            "beit3": {"sets": []},
            "benchmark": SETTINGS["benchmark"] | {"features": [ENCODER]},
        }
    return run_stages(folder, settings, stages)


def run_stages(folder: Path, settings: dict[str, Any], stages: Sequence[str]) -> dict[str, Cost]:
    """Run the stages whose costs are not yet recorded in the folder, and return all costs."""
    layout = Layout(folder / "outputs", DATASET)
    params, kept = folder / "params.yaml", folder / "costs.json"
    params.write_text(json.dumps(parameters(folder, settings)))
    costs: dict[str, Any] = io.read_json(kept) if kept.is_file() else {}
    for name in stages:
        if name not in costs:
            costs[name] = run_stage(layout, params, name)._asdict()
            io.write_json(kept, costs)

    if "publish" in stages and VERIFY not in costs:
        turn = _turns.timed(_turns.alone, verify_release, layout.release)
        costs[VERIFY] = Cost(turn.cpu, turn.wall, *turn.result)._asdict()
        io.write_json(kept, costs)
    return {name: Cost(**figures) for name, figures in costs.items()}


def run_stage(layout: Layout, params: Path, name: str) -> Cost:
    """Run a stage in a process; the program ends with a line if it fails."""
    command = [
        sys.executable,
        "-m",
        "alignrec",
        name,
        DATASET,
        "--params",
        str(params),
        "--root",
        str(layout.root),
    ]
    turn = _turns.timed(subprocess.run, command)
    if turn.result.returncode:
        sys.exit(f"{name} failed in {params.parent}; its last lines above say why")

    record = io.read_json(layout.cost(name, ENCODER if STAGES[name].per else ""))
    return Cost(turn.cpu, turn.wall, record["peak_memory_mib"], record["own_memory_mib"] or 0)


def verify_release(folder: Path) -> tuple[int, int]:
    """Verify a release, and return the peak memory of this process, with and without mapped files, MiB."""
    with process.watch_memory() as memory:
        Release(folder).verify()
    return process.peak_mib(), memory.mib or 0


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
