"""Items of the page: images, and a random gallery with neighbours under a few feature sets."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.features.names import LINEAR
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.runtime.layout import list_image_files

if TYPE_CHECKING:
    from PIL import Image

CELL = 80  # pixels of an image
BACKGROUND = (255, 255, 255)
JPEG_QUALITY = 80
NEIGHBOURS_SHOWN = 6  # of an item
SEPARATORS = (" > ", "|", "/")  # between the levels of a category that is one text
MIN_SEPARATED = 0.5  # fraction of categories with a separator, from which all are split at it


def make_thumbnails(tables: Iterable[pa.Table], items: set[int]) -> dict[int, Image.Image]:
    """Return item_id -> RGB image, CELL x CELL, uncropped; tables have item_id and image (JPEG)."""
    thumbnails = {}
    for table in tables:
        for item, data in zip(table["item_id"].to_pylist(), table["image"], strict=True):
            if item not in items or not data.is_valid:
                continue
            try:
                thumbnails[item] = _make_thumbnail(data.as_py())
            except OSError:
                continue
    return thumbnails


def _make_thumbnail(jpeg: bytes) -> Image.Image:
    from PIL import Image

    image = Image.open(BytesIO(jpeg), formats=["JPEG"]).convert("RGB")
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    thumbnail = Image.new("RGB", (CELL, CELL), BACKGROUND)
    thumbnail.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return thumbnail


def stored_pictures(images: Path, items: pa.Table, at: dict[str, int]) -> Iterator[pa.Table]:
    """Yield `item_id` (position in `items`) and `image` of images whose hash `items` lists."""
    hashes = items["image_sha256"].to_pylist()
    for path in list_image_files(images):
        table = io.read_table(path, schemas.IMAGES, ["asin", "sha256", "image"])
        rows = [at.get(asin, -1) for asin in table["asin"].to_pylist()]
        is_listed = [
            row >= 0 and hashes[row] == sha256
            for row, sha256 in zip(rows, table["sha256"].to_pylist(), strict=True)
        ]
        pictures = pa.table({"item_id": pa.array(rows, pa.int32()), "image": table["image"]})
        yield pictures.filter(pa.array(is_listed))


def encode_jpeg(image: Image.Image) -> str:
    """Return an image as base64 JPEG."""
    jpeg = BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return base64.b64encode(jpeg.getvalue()).decode()


@dataclass(frozen=True)
class Neighbours:
    """Items of the gallery, with their neighbours."""

    items: list[int]  # item_ids
    sets: dict[str, dict[int, list[int]]]  # feature set -> item_id -> neighbours, best first

    @property
    def shown(self) -> set[int]:
        items = set(self.items)
        for neighbours in self.sets.values():
            items.update(*neighbours.values())
        return items


def pick_neighbours(
    outputs: Outputs, gallery: int, seed: int, names: Sequence[str] = ()
) -> Neighbours | None:
    """Draw `gallery` items with neighbours under `names`; None without items or graphs.

    By default these are the released set, another one and a control.
    """
    if outputs.items is None or not outputs.graphs:
        return None
    taxonomy = split_categories(outputs.items["categories"].to_pylist())
    labels = [path[0] if path else "" for path in taxonomy]
    items = choose_items(labels, find_images(outputs), gallery, seed)

    sets = {}
    for name in names or _choose_sets(outputs):
        sets[name] = nearest_neighbours(outputs.edges(name, items), NEIGHBOURS_SHOWN)
    return Neighbours(items, sets)


def find_images(outputs: Outputs) -> set[int]:
    """Return the items with an image."""
    images = outputs.image_facts
    if images is None:
        return set()
    return set(images.filter(pc.field("status") == "ok")["item_id"].to_pylist())


def _choose_sets(outputs: Outputs) -> list[str]:
    """Choose the released set, `linear` or another one not made from it, and a control."""
    released = outputs.released
    sets = [name for name in outputs.graphs if name not in CONTROLS]
    sets.sort(
        key=lambda name: (name != released, name.startswith(f"{released}-"), name != LINEAR, name)
    )
    controls = [name for name in CONTROLS if name in outputs.graphs and name != "constant"]
    return [*sets[:2], *controls[:1]]


def choose_items(labels: Sequence[str], pictured: set[int], count: int, seed: int) -> list[int]:
    """Draw items: every category once before any twice, items with images first."""
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    drawn = Counter[tuple[bool, str]]()
    rounds = {}
    for item in order:
        group = (item not in pictured, labels[item])
        drawn[group] += 1
        rounds[item] = (group[0], drawn[group])
    return sorted(order, key=lambda item: rounds[item])[:count]


def nearest_neighbours(edges: pa.Table, count: int) -> dict[int, list[int]]:
    """Return item_id -> nearest other items, best first, from table EDGES."""
    others = edges.filter(pc.field("item_id") != pc.field("neighbour_id")).sort_by("rank")
    nearest: dict[int, list[int]] = {}
    pairs = zip(others["item_id"].to_pylist(), others["neighbour_id"].to_pylist(), strict=True)
    for item, other in pairs:
        near = nearest.setdefault(item, [])
        if len(near) < count:
            near.append(other)
    return nearest


def item_titles(items: pa.Table) -> list[str]:
    titles = items["title"].to_pylist()
    asins = items["asin"].to_pylist()
    return [title or asin for title, asin in zip(titles, asins, strict=True)]


def category_paths(items: pa.Table) -> list[str]:
    return [" › ".join(path) for path in split_categories(items["categories"].to_pylist())]


def split_categories(paths: Sequence[list[str]]) -> list[list[str]]:
    """Split categories of one level, such as `Home > Kitchen`, at a separator that most have."""
    names = [path[0] for path in paths if path]
    if any(len(path) > 1 for path in paths):
        return [*paths]

    for separator in SEPARATORS:
        separated = sum(separator in name for name in names)
        if separated and separated >= MIN_SEPARATED * len(names):
            return [_split_category(path[0], separator) if path else [] for path in paths]
    return [*paths]


def _split_category(name: str, separator: str) -> list[str]:
    levels = [level.strip() for level in name.split(separator)]
    return [level for level in levels if level]
