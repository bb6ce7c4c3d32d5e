"""Every stage on generated catalogues of growing size: seconds, memory an item, and the power of time in the items.

Images and encoder are small and trainings short, so that the stages are measured, not a network. Sizes at which a
stage turns to another way are lower than by default, so that a large catalogue's way is the one that is measured.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import Measurement, _catalogue, _turns
from benchmarks._turns import Way, short
from pipeline import io
from pipeline.layout import Layout
from pipeline.report.table import markdown
from pipeline.stage import Stage
from stages.order import IN_ORDER

SIZES = (2_500, 10_000, 40_000)  # each the same times the one before
LEAST = 0.5  # CPU seconds by which a stage's time must grow for a power to be told
DATASET = "shop"
HEAD = ["stage", *(f"CPU s, {n:,}" for n in SIZES), f"MiB, {SIZES[-1]:,}", "KiB an item", "power"]
ABOVE = (
    "**Every stage** on generated catalogues (`python -m benchmarks scale`): small images, a small encoder, trainings\n"
    "of an epoch, and the way for large catalogues wherever a stage has two. Memory an item is that between the two\n"
    "largest sizes. Seconds are a + b times the items to the power."
)
SETTINGS: dict[str, Any] = {
    "interactions": {"user_core": 1, "item_core": 1},
    "pretrain": {"steps": 20, "distill": 0, "words": "random", "codes": 32, "vocab": 1000},
    "encode": {"encoders": ["beit3", "tfidf", "linear"], "shard_rows": 4096},
    "graph": {"exact_up_to": SIZES[0]},
    "semantic_ids": {"codes": 64},
    "train": {"epochs": 1},
    "benchmark": {"models": ["bpr", "vbpr"], "features": ["beit3"], "seeds": 1, "workers": 1},
    "study": {"mask": {"ratios": []}, "workers": 1},
    "report": {"searchable": SIZES[0] // 10, "mapped": SIZES[0]},
}


class Taken(NamedTuple):
    """What a stage took, its start included."""

    cpu: float  # seconds of all its threads and processes: other programs do not add to them
    wall: float
    mib: float  # largest resident size, of files that it maps too
    own: float = 0.0  # the same without these files


def run() -> Measurement:
    """Run all stages at each size, once; every stage is a process."""
    ways: dict[str, Way[dict[str, Taken]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in SIZES:
            _catalogue.write(there := Path(folder) / str(n), n)
            turn = _turns.timed(partial(pipeline, there, SETTINGS))
            ways[f"{n:,} items"] = Way([turn], n)
    rows = [row(stage.name, [way.last[stage.name] for way in ways.values()]) for stage in IN_ORDER]
    show(ABOVE, HEAD, rows)
    return compared(ways)


def compared(ways: dict[str, Way[dict[str, Taken]]]) -> Measurement:
    """Return the largest size next to the smallest, which stands first."""
    first, *_, last = ways
    return Measurement(
        ways=ways,
        ours=last,
        reference=first,
        unit="items/s",
        higher_is_better=True,
        limit=ways[first].work / ways[first].wall.median,
        limit_is=f"the rate at {first}, which stays where time grows with the items",
        what="all stages on generated catalogues, a process each, with what starting them takes",
        details={"stages": {name: {s: t._asdict() for s, t in way.last.items()} for name, way in ways.items()}},
    )


def show(above: str, head: list[str], rows: list[list[str]]) -> None:
    print(above, markdown(head, rows), sep="\n\n", end="\n\n")


def pipeline(folder: Path, settings: dict[str, Any], stages: Sequence[Stage] = IN_ORDER) -> dict[str, Taken]:
    """Run stages on a catalogue that was written to the folder; return what each took.

    What a stage took is kept in the folder: after a kill the stages that have ended are not run again.
    """
    root, params, kept = folder / "outputs", folder / "params.yaml", folder / "taken.json"
    params.write_text(json.dumps(parameters(folder, settings)))
    taken: dict[str, Any] = io.read_json(kept) if kept.is_file() else {}
    for stage in stages:
        if stage.name in taken:
            continue
        command = [sys.executable, "-m", "stages", stage.name, DATASET, "--params", str(params), "--root", str(root)]
        turn = _turns.timed(subprocess.run, command)
        if turn.result.returncode:
            sys.exit(f"{stage.name} failed in {folder}; its last lines above say why")
        record = io.read_json(Layout(root, DATASET).cost(stage.name))
        taken[stage.name] = Taken(
            turn.cpu, turn.wall, record["peak_memory_mib"], record["own_memory_mib"] or 0
        )._asdict()
        io.write_json(kept, taken)
    return {name: Taken(**figures) for name, figures in taken.items()}


def parameters(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings and where the catalogue of a folder is."""
    files = {"interactions": str(folder / _catalogue.INTERACTIONS), "items": str(folder / _catalogue.ITEMS)}
    images = {"folder": str(folder / _catalogue.IMAGES), "pattern": "{item}.jpg"}
    return {"datasets": [DATASET], "sources": {DATASET: {"kind": "tabular", **files}}, "images": images, **settings}


def row(stage: str, taken: list[Taken]) -> list[str]:
    """Return a row of the table; `figures` says of which sizes memory an item and the power of time are."""
    kib, power = figures([t.mib for t in taken], [t.cpu for t in taken])
    return [stage, *(short(t.cpu) for t in taken), short(taken[-1].mib), f"{kib:.1f}", power]


def figures(mib: list[float], seconds: list[float]) -> tuple[float, str]:
    """Return KiB an item, of the two largest sizes, and p of seconds = a + b items^p, of all three, a ratio apart.

    What starting takes, a, cancels in differences. Where seconds do not grow there is no p.
    """
    kib = 1024 * (mib[-1] - mib[-2]) / (SIZES[-1] - SIZES[-2])
    first, second = seconds[1] - seconds[0], seconds[2] - seconds[1]
    power = f"{math.log(second / first, SIZES[2] / SIZES[1]):.1f}" if min(first, second) > LEAST else ""
    return max(kib, 0.0), power
