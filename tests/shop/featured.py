"""Feature sets of a small shop, from the stages `encode`, `beit3` and `combine`; and a catalogue of coloured images."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pictures
from shop import toy

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.encoders.params import Encode
from alignrec.pipeline.runtime.layout import Layout


def params(*names: str, sets: Mapping[str, Any] | None = None, **encoders: dict[str, Any]) -> Params:
    """Return parameters with encoders `names`, and combinations `sets`."""
    own = {"encode": {"encoders": list(names), "shard_rows": 4}, "combine": {"sets": sets or {}, "controls": []}}
    return toy.params(**own, beit3={"sets": []}, encoders=encoders)


def stage(layout: Layout, given: Params) -> dict[str, bytes]:
    """Run the stages; return the files of each feature set."""
    for name in given[Encode].encoders:
        toy.run("encode", given, layout.root, layout.dataset, item=name)
    if given[BEiT3Sets].sets:
        toy.run("beit3", given, layout.root, layout.dataset)
    toy.run("combine", given, layout.root, layout.dataset)
    return files(layout)


def files(layout: Layout) -> dict[str, bytes]:
    return {
        name: b"".join(path.read_bytes() for path in io.shards(layout.features(name), "features"))
        for name in layout.feature_sets()
    }


def vectors(layout: Layout, name: str) -> np.ndarray:
    return io.matrix(io.read_features(layout.features(name))["vector"])


COLOURS = ["red", "green", "blue", "grey", "white", "yellow"]


class Item(NamedTuple):
    asin: str
    text: str
    colour: str | None


def item(number: int) -> Item:
    """Return a distinct item; every fifth has no text, every fourth no image."""
    text = f"{'small ' * (number % 3)}thing {number}" if number % 5 else ""
    return Item(f"A{number}", text, COLOURS[number % 6] if number % 4 else None)


ITEMS = [item(i) for i in range(14)]


def catalogue(root: Path, items: list[Item]) -> Layout:
    """Write the inputs of `encode`, with five images per file."""
    layout, asin = Layout(root, "shop"), [one.asin for one in items]
    io.write_json(layout.sources, [])
    images = toy.image_table([pictures.plain(one.colour) if one.colour else None for one in items], asin=asin)
    shutil.rmtree(layout.images, ignore_errors=True)
    toy.write_catalogue(layout, toy.item_table([one.text for one in items], asin=asin), images, images_per_file=5)
    return layout
