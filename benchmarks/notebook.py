"""Raw files of a catalogue to features and neighbours: our stages next to what notebooks do, and where each runs out.

Both encode with the same two tiny networks, so that what is around them is measured; both have the same items. A step
of the notebook has what those before it left in memory; a stage is a process.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import Measurement, _catalogue, _turns, scale
from benchmarks import _plain_catalogue as plain
from benchmarks._turns import Turn, Way, short
from benchmarks.scale import SIZES, Taken
from pipeline import memory
from stages.download import DOWNLOAD
from stages.order import IN_ORDER

STEPS = ("interactions", "items", "images", "encode", "graph")  # of a notebook; stages of the same names do the same
STAGES = [DOWNLOAD, *(stage for stage in IN_ORDER if stage.name in STEPS)]
MEMORY = 24 * 1024  # MiB, at which a way runs out
NOTEBOOK, OURS = "notebook", "ours"
MOST = 10_000_000  # largest number of items in the table; growth that was measured on thousands does not reach further
ABOVE = (
    "**The way of notebooks** next to our stages (`python -m benchmarks notebook`): pandas, Pillow,\n"
    "sentence-transformers, cosines of all pairs. Both encode with the same two tiny networks."
)
HEAD = ["step", "way", *(f"CPU s, {n:,}" for n in SIZES), f"MiB, {SIZES[-1]:,}", "KiB an item", "items in 24 GiB"]


def run() -> Measurement:
    """Do the work once in each way at each size, and print the table."""
    ways: dict[str, Way[dict[str, Taken]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _turns.alone(plain.write_networks, networks := Path(folder) / "networks")
        for n in SIZES:
            _catalogue.write(there := Path(folder) / str(n), n)
            own = partial(scale.pipeline, there, settings(networks), STAGES)
            for way, work in ((NOTEBOOK, partial(_turns.alone, notebook, there, networks)), (OURS, own)):
                ways[f"{way}, {n:,} items"] = Way([_turns.timed(work)], n)
    taken = {way: [ways[f"{way}, {n:,} items"].last for n in SIZES] for way in (NOTEBOOK, OURS)}
    scale.show(ABOVE, HEAD, table(taken))
    *_, first, last = ways
    return Measurement(
        ways=ways,
        ours=last,
        reference=first,
        unit="items/s",
        higher_is_better=True,
        limit=SIZES[-1] / taken[NOTEBOOK][-1]["encode"].wall,
        limit_is="what the notebook reaches in its step `encode` alone",
        what="raw files to features of two tiny networks and their neighbours, with what starting takes",
        details={"steps": {name: {s: t._asdict() for s, t in way.last.items()} for name, way in ways.items()}},
    )


def notebook(folder: Path, networks: Path) -> dict[str, Taken]:
    """Do all steps as a notebook does, in this process; return what each took."""
    taken: dict[str, Taken] = {}

    def step(name: str, *given: Any) -> Any:
        turn: Turn[Any] = _turns.timed(getattr(plain, name), *given)
        taken[name] = Taken(turn.cpu, turn.wall, memory.peak_mib())
        return turn.result

    frame, names = step("interactions", folder)
    texts, pictures = step("items", folder, names), step("images", folder, names)
    neighbours = step("graph", step("encode", networks, texts, pictures))
    assert len(neighbours) == len(texts) == frame["item_id"].nunique()
    return taken


def settings(networks: Path) -> dict[str, Any]:
    """Return the parameters of our stages: the notebook's choices, and the ways for large catalogues."""
    text = {"kind": "sentence-transformers", "model": str(networks / plain.TEXT), "modalities": ["text"]}
    image = {"kind": "huggingface", "model": str(networks / plain.IMAGE)}
    return {
        "interactions": {"user_core": plain.CORE, "item_core": plain.CORE},
        "encoders": {"text": text, "image": image, "both": {"kind": "concat", "of": ["text", "image"]}},
        "encode": {"encoders": ["both"], "controls": [], "batch_size": plain.BATCH, "shard_rows": 4096},
        "graph": {"k": plain.NEIGHBOURS, "exact_up_to": SIZES[0]},
    }


def table(taken: dict[str, list[dict[str, Taken]]]) -> list[list[str]]:
    """Return a row a step and way: CPU seconds of all sizes, MiB of the largest, its growth, and the items that fit."""
    return [_row(step, way, [size[step] for size in sizes]) for step in STEPS for way, sizes in taken.items()]


def _row(step: str, way: str, taken: list[Taken]) -> list[str]:
    mib = [t.mib for t in taken]
    kib, _ = scale.figures(mib, [0.0] * len(SIZES))
    fit = items_that_fit(mib, pairs=4 if (way, step) == (NOTEBOOK, "graph") else 0)
    said = f"over {MOST:,}" if fit > MOST else f"{float(f'{fit:.2g}'):,.0f}"
    return [step, way, *(short(t.cpu) for t in taken), short(mib[-1]), f"{kib:.1f}", said]


def items_that_fit(mib: list[float], pairs: int = 0) -> float:
    """Return the items that fit in MEMORY, by the growth between the two largest sizes; infinite where nothing grows.

    Args:
        mib: largest resident size at each size.
        pairs: bytes for each pair of items, which grow with the square: they are taken out before, and put back.
    """
    squares = [pairs * n**2 / 2**20 for n in SIZES]
    kib, _ = scale.figures([m - s for m, s in zip(mib, squares, strict=True)], [0.0] * len(SIZES))
    a, b = pairs / 2**20, kib / 1024
    c = mib[-1] - squares[-1] - b * SIZES[-1] - MEMORY  # a n^2 + b n + c = 0
    if a:
        return float((-b + (b * b - 4 * a * c) ** 0.5) / (2 * a))
    return -c / b if b else float("inf")
