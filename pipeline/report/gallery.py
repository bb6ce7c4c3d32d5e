"""Items of the page: images, a random gallery and neighbours under each feature set."""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.combine.names import CEILINGS, LINEAR
from alignrec.pipeline.items.columns import label_items
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.table import CONTROLS

CELL = 80  # pixels of an image in a sheet
COLUMNS = 20  # images per row, and rows: 1600 x 1600 pixels, which phones decode
BACKGROUND = (255, 255, 255)
NEAR = 6  # neighbours of an item
SEARCHABLE, MAPPED = 3_000, 100_000  # largest catalogues, in items, with all images and with a map
CLASSES = 8  # most frequent categories that have a colour of their own
SETS = 3  # feature sets side by side


@dataclass(frozen=True)
class Sheets:
    """Thumbnails of many items, packed into a few JPEG sheets."""

    data: list[str]  # base64 JPEG
    place: dict[int, int]  # item_id -> cell, counted through all sheets

    def table(self, titles: Sequence[str], notes: Sequence[str]) -> dict[str, Any]:
        return {"titles": titles, "notes": notes, "cells": [self.place.get(i, -1) for i in range(len(titles))]}


def make_thumbnails(tables: Iterable[pa.Table], wanted: set[int]) -> dict[int, Image.Image]:
    """Return item_id -> RGB image, CELL x CELL, uncropped; tables have item_id and image (JPEG)."""
    images = {}
    for table in tables:
        for item, data in zip(table["item_id"].to_pylist(), table["image"], strict=True):
            if item in wanted and data.is_valid and (image := _fitted(data.as_py())):
                images[item] = image
    return images


def stored_pictures(images: Path, items: pa.Table, at: dict[str, int]) -> Iterator[pa.Table]:
    """Yield `item_id` (position in `items`) and `image` of images whose hash `items` lists."""
    hashes = items["image_sha256"].to_pylist()
    for path in sorted(images.glob("images-*.parquet")):
        table = io.read_table(path, schemas.IMAGES, ["asin", "sha256", "image"])
        rows = [at.get(asin, -1) for asin in table["asin"].to_pylist()]
        matching = [i >= 0 and hashes[i] == sha256 for i, sha256 in zip(rows, table["sha256"].to_pylist(), strict=True)]
        yield pa.table({"item_id": pa.array(rows, pa.int32()), "image": table["image"]}).filter(pa.array(matching))


def pack_sheets(images: Mapping[int, Image.Image]) -> Sheets:
    items = sorted(images)
    data = []
    for start in range(0, len(items), COLUMNS * COLUMNS):
        part = items[start : start + COLUMNS * COLUMNS]
        sheet = Image.new("RGB", (COLUMNS * CELL, -(-len(part) // COLUMNS) * CELL), BACKGROUND)
        for i, item in enumerate(part):
            sheet.paste(images[item], (i % COLUMNS * CELL, i // COLUMNS * CELL))
        out = BytesIO()
        sheet.save(out, "JPEG", quality=80, optimize=True)
        data.append(base64.b64encode(out.getvalue()).decode())
    return Sheets(data, {item: i for i, item in enumerate(items)})


def _fitted(data: bytes) -> Image.Image | None:
    try:
        image = Image.open(BytesIO(data), formats=["JPEG"]).convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (CELL, CELL), BACKGROUND)
    square.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return square


@dataclass(frozen=True)
class Neighbours:
    """Items of the gallery and the map, with their neighbours."""

    items: list[int]  # of the gallery
    sets: dict[str, dict[int, list[int]]]  # feature set -> item_id -> neighbours; gallery items only, without a map
    columns: list[str]  # sets shown side by side, see `columns`
    searchable: bool  # whether all items are shown, with images and neighbours
    mapped: bool  # whether all items are on the map
    classes: list[str]  # names of the most frequent categories, most frequent first
    colour: list[int]  # by item_id: index of its category in `classes`, or -1

    @property
    def shown(self) -> set[int]:
        if self.searchable:
            return set(range(len(self.colour)))
        return {*self.items, *(other for of in self.sets.values() for i in self.items for other in of.get(i, []))}


def pick_neighbours(outputs: Outputs, gallery: int, seed: int) -> Neighbours | None:
    """Draw `gallery` items with neighbours; None without items or graphs. Above SEARCHABLE, only `columns` are read."""
    if outputs.items is None or not outputs.graphs:
        return None
    n = len(outputs.items)
    has_image = [False] * n
    if (images := outputs.image_facts) is not None:
        for item, status in zip(images["item_id"].to_pylist(), images["status"].to_pylist(), strict=True):
            has_image[item] = status == "ok"
    taxonomy = outputs.items["categories"].to_pylist()
    items = choose_items([path[0] if path else "" for path in taxonomy], has_image, gallery, seed)
    names = sorted(outputs.graphs, key=lambda name: (name in CONTROLS, name != outputs.released, name != LINEAR, name))
    names = [name for name in names if name not in ("constant", *CEILINGS)]
    first = columns(names, outputs.released)
    shown = first if SEARCHABLE < n <= MAPPED else names
    sets = {name: nearest_neighbours(outputs.edges(name, None if n <= MAPPED else items), NEAR) for name in shown}
    return Neighbours(items, sets, first, n <= SEARCHABLE, n <= MAPPED, *_classes(taxonomy))


def columns(names: Sequence[str], released: str) -> list[str]:
    """Choose SETS of `names`: the released set, another and a control come first."""
    own = [name for name in names if name == released]
    controls = [name for name in names if name in CONTROLS]
    rivals = [name for name in names if name not in controls and not f"{name}-".startswith(f"{released}-")]
    return list(dict.fromkeys([*own, *rivals[:1], *controls[:1], *rivals, *names]))[:SETS]


def choose_items(labels: Sequence[str], has_image: Sequence[bool], count: int, seed: int) -> list[int]:
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    seen = Counter[tuple[bool, str]]()
    # each category once before any twice, items with images first
    rounds = {}
    for i in order:
        seen[not has_image[i], labels[i]] += 1
        rounds[i] = not has_image[i], seen[not has_image[i], labels[i]]
    return sorted(order, key=lambda i: rounds[i])[:count]


def nearest_neighbours(edges: pa.Table, count: int) -> dict[int, list[int]]:
    """Return item_id -> nearest other items, best first, from table EDGES."""
    item, other, rank = (edges[c].to_numpy() for c in ("item_id", "neighbour_id", "rank"))
    kept = item != other
    if not kept.any():  # no item has a vector, as where every image is unreachable
        return {}
    order = np.lexsort((rank[kept], item[kept]))
    item, other = item[kept][order], other[kept][order]
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]])
    ends = np.r_[starts[1:], len(item)]
    return {int(item[a]): other[a : min(b, a + count)].tolist() for a, b in zip(starts, ends, strict=True)}


def _classes(taxonomy: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    labels = label_items(taxonomy)
    colour = np.full(len(taxonomy), -1)
    if labels is None:
        return [], colour.tolist()
    common = np.argsort(-np.bincount(labels.label), kind="stable")[:CLASSES]
    place = np.full(len(labels.names), -1)
    place[common] = np.arange(len(common))
    colour[labels.rows] = place[labels.label]
    return [labels.names[c] for c in common], colour.tolist()


def item_titles(items: pa.Table) -> list[str]:
    return [title or asin for title, asin in zip(*(items[c].to_pylist() for c in ("title", "asin")), strict=True)]


def category_paths(items: pa.Table) -> list[str]:
    return [" › ".join(path) for path in items["categories"].to_pylist()]


def item_popularity(interactions: pa.Table | None, items: int) -> list[int]:
    if interactions is None:
        return []
    item, split = (interactions[column].to_numpy() for column in ("item_id", "split"))
    return np.bincount(item[split == schemas.TRAIN], minlength=items).tolist()
