"""Run all stages on 100,000 and 1,000,000 generated items to measure how time and memory scale.

Images and the encoder are small, so that networks do not dominate. It takes one to two hours, and 10 GB in FOLDER,
where an interrupted run resumes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from alignrec.pipeline import io
from alignrec.pipeline.runtime.layout import Layout
from alignrec.stages.order import IN_ORDER
from benchmarks import Measurement, _catalogue, _turns
from benchmarks._turns import Way, short

SIZES = {100_000: 10, 1_000_000: 100}  # items -> batches that share a propagation over the graph
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


def run() -> Measurement:
    """Run all stages at both sizes, each in a process."""
    ways: dict[str, Way[dict[str, Cost]]] = {}
    for n, together in SIZES.items():
        if not (folder := FOLDER / str(n)).is_dir():
            begun = FOLDER / f".{n}"
            shutil.rmtree(begun, ignore_errors=True)
            _catalogue.write(begun, n)
            begun.rename(folder)
        train = {"epochs": 1, "mode": "frozen", "accumulate": together}
        turn = _turns.timed(partial(run_stages, folder, SETTINGS | {"train": train}))
        costs = turn.result.values()
        ways[f"{n:,} items"] = Way(
            [_turns.Turn(sum(c.wall for c in costs), sum(c.cpu for c in costs), turn.result)], n
        )
    small, large = (way.last for way in ways.values())
    print("\n".join(table_lines(small, large)))
    shutil.rmtree(FOLDER)
    first, last = ways
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
            "stages": {
                name: {s: c._asdict() for s, c in way.last.items()} for name, way in ways.items()
            }
        },
    )


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
        "sources": {DATASET: {"kind": "tabular", **files}},
        "images": images,
        **settings,
    }


def table_lines(small: dict[str, Cost], large: dict[str, Cost]) -> list[str]:
    sizes = [f"{n:,}" for n in SIZES]
    head = [
        "stage",
        *(f"CPU s, {n}" for n in sizes),
        "times",
        *(f"{of}MiB, {n}" for of in ("", "own ") for n in sizes),
    ]
    rows = [head, ["---"] * len(head)]
    for stage, a in small.items():
        b = large[stage]
        times = f"{b.cpu / a.cpu:.1f}"
        rows.append(
            [stage, short(a.cpu), short(b.cpu), times, *map(short, (a.mib, b.mib, a.own, b.own))]
        )
    return [f"| {' | '.join(row)} |" for row in rows]
