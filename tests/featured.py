"""Feature sets of a small shop, from the stages `encode`, `beit3` and `combine`; and a catalogue of coloured images."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import networks
import numpy as np
import pyarrow as pa
import toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.encode.params import BEiT3, Encode
from alignrec.pipeline.harness.layout import Layout


def params(*names: str, sets: Mapping[str, Any] | None = None, **encoders: dict[str, Any]) -> Params:
    """Return parameters with encoders `names`, and combinations `sets`."""
    own = {"encode": {"encoders": list(names), "shard_rows": 4}, "combine": {"sets": sets or {}, "controls": []}}
    return toy.params(**own, beit3={"sets": []}, encoders=encoders)


def stage(layout: Layout, given: Params) -> dict[str, bytes]:
    """Run the stages; return the files of each feature set."""
    for name in given[Encode].encoders:
        toy.run("encode", given, layout.root, layout.dataset, item=name)
    if given[BEiT3].sets:
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
    layout, n = Layout(root, "shop"), len(items)
    io.write_json(layout.sources, [])
    ids = {"item_id": pa.array(range(n), pa.int32()), "asin": [one.asin for one in items]}
    io.write_table(pa.table(ids), layout.item_ids, schemas.ITEM_IDS)
    texts, empty, lists = [one.text for one in items], [""] * n, pa.array([[]] * n, pa.list_(pa.string()))
    columns = ids | {"title": texts, "brand": empty, "categories": lists, "description": empty, "text": texts}
    columns |= {"text_status": ["ok" if text else "empty" for text in texts], "image_urls": lists}
    columns |= {"tokens": pa.array([len(text.split()) for text in texts], pa.int32()), "extra": ["{}"] * n}
    io.write_table(pa.table(columns), layout.items, schemas.ITEMS)
    jpegs = [networks.jpeg(one.colour) if one.colour else None for one in items]
    size = pa.array([40 if jpeg else 0 for jpeg in jpegs], pa.int32())
    columns = ids | {"status": ["ok" if jpeg else "missing" for jpeg in jpegs], "reason": empty, "url": empty}
    columns |= {"image": pa.array(jpegs, pa.binary()), "width": size, "height": size, "sha256": empty}
    columns |= {"phash": pa.array([1 if jpeg else None for jpeg in jpegs], pa.uint64())}
    shutil.rmtree(layout.images, ignore_errors=True)
    for number, start in enumerate(range(0, n, 5)):
        rows = pa.table(columns).slice(start, 5)
        io.write_table(rows, io.shard(layout.images, "images", number), schemas.IMAGES)
    return layout
