"""A million generated items through all stages next to a hundred thousand: how time and memory grow.

Encoder, images and trainings are small, as in `scale`. Training is that of a large catalogue: features are fixed, and
batches share a walk over the graph, ten times as many on ten times the graph. An hour or two, and 10 GB of disk in
FOLDER, which is kept until both sizes are done: after a kill the same command goes on.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import Measurement, _catalogue, _turns, scale
from benchmarks._turns import Way, short
from benchmarks.scale import Taken
from stages.order import IN_ORDER

SIZES = {100_000: 10, 1_000_000: 100}  # items, and how many batches share a walk
FOLDER = Path(tempfile.gettempdir()) / "alignrec-million"
SETTINGS: dict[str, Any] = scale.SETTINGS | {
    "encode": {"encoders": ["beit3"], "controls": ["random"]},
    "benchmark": {"models": ["lightgcn"], "features": ["beit3"], "seeds": 1, "workers": 1},
}
HEAD = ["stage", *(f"CPU s, {n:,}" for n in SIZES), "times"]
HEAD += [f"{of}MiB, {n:,}" for of in ("", "own ") for n in SIZES]  # own: without the pages of mapped files
ABOVE = (
    "**A million items** next to a hundred thousand (`python -m benchmarks million`): two million users, 13 million\n"
    "interactions, small images and texts, a small encoder and a control, an epoch of training as below."
)


def run() -> Measurement:
    """Run all stages at both sizes, each stage in a process."""
    ways: dict[str, Way[dict[str, Taken]]] = {}
    for n, together in SIZES.items():
        if not (there := FOLDER / str(n)).is_dir():
            begun = FOLDER / f".{n}"
            shutil.rmtree(begun, ignore_errors=True)
            _catalogue.write(begun, n)
            begun.rename(there)
        settings = SETTINGS | {"train": {"epochs": 1, "mode": "frozen", "accumulate": together}}
        turn = _turns.timed(partial(scale.pipeline, there, settings))
        took = turn.result.values()
        ways[f"{n:,} items"] = Way([_turns.Turn(sum(t.wall for t in took), sum(t.cpu for t in took), turn.result)], n)
    small, large = (way.last for way in ways.values())
    scale.show(ABOVE, HEAD, [row(stage.name, small, large) for stage in IN_ORDER])
    shutil.rmtree(FOLDER)
    return scale.compared(ways)


def row(stage: str, small: dict[str, Taken], large: dict[str, Taken]) -> list[str]:
    """Return a row of the table."""
    a, b = small[stage], large[stage]
    return [stage, short(a.cpu), short(b.cpu), f"{b.cpu / a.cpu:.1f}", *map(short, (a.mib, b.mib, a.own, b.own))]
