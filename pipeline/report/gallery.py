"""Items of the page: images, a random gallery, neighbours under each feature set, and a 2-d map.

Letters: I items, E edges.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.kinds import CONTROLS
from alignrec.pipeline.features.names import CEILINGS, LINEAR
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.runtime.layout import list_image_files

if TYPE_CHECKING:
    from PIL import Image

CELL = 80  # pixels of an image in a sheet
COLUMNS = 20  # images per row, and rows, of a sheet: 1600 x 1600 pixels, which phones can decode
BACKGROUND = (255, 255, 255)
JPEG_QUALITY = 80
NEIGHBOURS_SHOWN = 6  # of an item
MAX_SEARCHABLE = 3_000  # items of catalogues shown with all images
MAX_MAPPED = 100_000  # items of catalogues shown with a map
MIN_CATEGORY_ITEMS = 10
ITEMS_PER_CATEGORY = 50  # items of a small catalogue, per item that a category needs at least
MAX_CATEGORY_SHARE = 0.95  # of one category, above which its level is skipped
MAX_CLASSES = 8  # most frequent categories that get their own colour
MIN_COVERED = 0.5  # fraction of the items that a level should colour
SEPARATORS = (" > ", "|", "/")  # between the levels of a category that is one text
MIN_SEPARATED = 0.5  # fraction of categories with a separator, from which all are split at it
MAX_COLUMNS = 3  # feature sets side by side
# the map: a layout by UMAP's forces (McInnes et al. 2018, a = b = 1) on the item graph
MAP_WIDTH = 10_000
MAP_HEIGHT = 6_200
MARGIN = 120
MIN_ROUNDS = 120
MAX_ROUNDS = 200
MAX_MOVES = 4_000_000  # budget over all rounds
PUSHES = 5  # random items that repel each item, per round
SMOOTHINGS = 40  # averaging steps of the start
STEP = 0.3
MAX_FORCE = 4.0  # maximum move along an axis by one force
OUTLIERS = [0.005, 0.995]  # quantiles beyond which positions are clipped


@dataclass(frozen=True)
class Sheets:
    """Thumbnails of many items, packed into a few JPEG sheets."""

    data: list[str]  # base64 JPEG
    place: dict[int, int]  # item_id -> cell, counted through all sheets

    def table(self, titles: Sequence[str], notes: Sequence[str]) -> dict[str, Any]:
        cells = [self.place.get(item, -1) for item in range(len(titles))]
        return {"titles": titles, "notes": notes, "cells": cells}


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


def pack_sheets(images: Mapping[int, Image.Image]) -> Sheets:
    items = sorted(images)
    per_sheet = COLUMNS * COLUMNS
    ordered = [images[item] for item in items]
    data = [
        _pack_sheet(ordered[start : start + per_sheet]) for start in range(0, len(items), per_sheet)
    ]
    return Sheets(data, {item: cell for cell, item in enumerate(items)})


def _pack_sheet(images: Sequence[Image.Image]) -> str:
    """Return a sheet as base64 JPEG."""
    from PIL import Image

    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), BACKGROUND)
    for number, image in enumerate(images):
        row, column = divmod(number, COLUMNS)
        sheet.paste(image, (column * CELL, row * CELL))

    jpeg = BytesIO()
    sheet.save(jpeg, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return base64.b64encode(jpeg.getvalue()).decode()


@dataclass(frozen=True)
class Neighbours:
    """Items of the gallery and the map, with their neighbours."""

    items: list[int]  # item_ids of the gallery
    # feature set -> item_id -> neighbours; gallery items only, without a map
    sets: dict[str, dict[int, list[int]]]
    columns: list[str]  # sets shown side by side, see `choose_columns`
    searchable: bool  # whether all items are shown, with images and neighbours
    mapped: bool  # whether all items are on the map
    classes: list[str]  # names of the most frequent categories, most frequent first
    colour: list[int]  # per item_id: index of its category in `classes`, or -1

    @property
    def shown(self) -> set[int]:
        if self.searchable:
            return set(range(len(self.colour)))
        items = set(self.items)
        for neighbours in self.sets.values():
            for item in self.items:
                items.update(neighbours.get(item, []))
        return items


def pick_neighbours(outputs: Outputs, gallery: int, seed: int) -> Neighbours | None:
    """Draw `gallery` items with neighbours; None without items or graphs.

    Above MAX_SEARCHABLE items, only `columns` are read.
    """
    if outputs.items is None or not outputs.graphs:
        return None
    taxonomy = split_categories(outputs.items["categories"].to_pylist())
    n_items = len(taxonomy)
    is_mapped = n_items <= MAX_MAPPED
    is_searchable = n_items <= MAX_SEARCHABLE

    labels = [path[0] if path else "" for path in taxonomy]
    items = choose_items(labels, _find_images(outputs, n_items), gallery, seed)
    names = _list_sets(outputs)
    columns = choose_columns(names, outputs.released)

    sets = {}
    for name in columns if is_mapped and not is_searchable else names:
        edges = outputs.edges(name, None if is_mapped else items)
        sets[name] = nearest_neighbours(edges, NEIGHBOURS_SHOWN)
    classes, colour = colour_classes(taxonomy)
    return Neighbours(items, sets, columns, is_searchable, is_mapped, classes, colour)


def _find_images(outputs: Outputs, n_items: int) -> list[bool]:
    has_image = [False] * n_items
    images = outputs.image_facts
    if images is not None:
        statuses = images["status"].to_pylist()
        for item, status in zip(images["item_id"].to_pylist(), statuses, strict=True):
            has_image[item] = status == "ok"
    return has_image


def _list_sets(outputs: Outputs) -> list[str]:
    """Return the sets with graphs: the released one, `linear`, others, controls."""
    names = [name for name in outputs.graphs if name not in ("constant", *CEILINGS)]
    return sorted(
        names, key=lambda name: (name in CONTROLS, name != outputs.released, name != LINEAR, name)
    )


def colour_classes(paths: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    """Return the MAX_CLASSES most frequent categories, and each item's index among them, or -1.

    Categories are those of the first level with several that covers most items, or of the level
    that covers the most.
    """
    table = pa.array(paths, pa.list_(pa.string()))
    lengths = pc.list_value_length(table).to_numpy()
    least = max(2, min(MIN_CATEGORY_ITEMS, len(paths) // ITEMS_PER_CATEGORY))
    best_classes: list[str] = []
    best_colour = np.full(len(paths), -1)
    for level in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > level)
        categories = pc.list_element(table.take(pa.array(rows)), level)
        classes = _frequent_categories(categories, least)
        if not classes:
            continue

        colour = np.full(len(paths), -1)
        index = pc.index_in(categories, pa.array(classes))
        colour[rows] = pc.fill_null(index, -1).to_numpy()
        if (colour >= 0).sum() > (best_colour >= 0).sum():
            best_classes = classes
            best_colour = colour
        if (best_colour >= 0).mean() >= MIN_COVERED:
            break
    return best_classes, best_colour.tolist()


def _frequent_categories(categories: pa.Array, least: int) -> list[str]:
    """Return the most frequent categories; empty if one has nearly all items."""
    values, counts = pc.value_counts(categories).flatten()
    count_of = dict(zip(values.to_pylist(), counts.to_pylist(), strict=True))
    frequent = sorted(name for name, n in count_of.items() if n >= least)
    if len(frequent) < 2 or max(count_of.values()) >= MAX_CATEGORY_SHARE * len(categories):
        return []
    return sorted(frequent, key=lambda name: -count_of[name])[:MAX_CLASSES]


def choose_columns(names: Sequence[str], released: str) -> list[str]:
    """Choose MAX_COLUMNS of `names`: first the released set, another set and a control."""
    controls = [name for name in names if name in CONTROLS]
    rivals = [
        name for name in names if name not in CONTROLS and not f"{name}-".startswith(f"{released}-")
    ]
    first = [released] if released in names else []
    chosen = dict.fromkeys([*first, *rivals[:1], *controls[:1], *rivals, *names])
    return list(chosen)[:MAX_COLUMNS]


def choose_items(
    labels: Sequence[str], has_image: Sequence[bool], count: int, seed: int
) -> list[int]:
    """Draw items: every category once before any twice, items with images first."""
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    drawn = Counter[tuple[bool, str]]()
    rounds = {}
    for item in order:
        lacks_image = not has_image[item]
        drawn[lacks_image, labels[item]] += 1
        rounds[item] = (lacks_image, drawn[lacks_image, labels[item]])
    return sorted(order, key=lambda item: rounds[item])[:count]


def nearest_neighbours(edges: pa.Table, count: int) -> dict[int, list[int]]:
    """Return item_id -> nearest other items, best first, from table EDGES."""
    # empty if no item has a vector, for example if every image is unreachable
    others = edges.filter(pc.field("item_id") != pc.field("neighbour_id"))
    item = others["item_id"].to_numpy()
    order = np.lexsort((others["rank"].to_numpy(), item))
    item = item[order]
    neighbour = others["neighbour_id"].to_numpy()[order]

    ids, starts, counts = np.unique(item, return_index=True, return_counts=True)
    ends = starts + np.minimum(counts, count)
    return {
        int(item_id): neighbour[start:end].tolist()
        for item_id, start, end in zip(ids, starts, ends, strict=True)
    }


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


def map_positions(edges: pa.Table, n_items: int, seed: int) -> list[int]:
    """Return x and y of each item on the map, interleaved."""
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, MAX_MOVES // max(n_items, 1)))
    size = np.array([MAP_WIDTH, MAP_HEIGHT]) - 2 * MARGIN
    positions = lay_out(edges, n_items, seed, rounds) * size + MARGIN
    interleaved: list[int] = positions.round().astype(int).ravel().tolist()
    return interleaved


def lay_out(edges: pa.Table, n_items: int, seed: int, rounds: int = MAX_ROUNDS) -> np.ndarray:
    """Return positions float64 [I, 2] in 0 .. 1, from edges of schema EDGES."""
    if n_items < 3:
        across = np.arange(1, n_items + 1) / (n_items + 1)
        return np.stack([across, np.full(n_items, 0.5)], axis=1)

    others = edges.filter(pc.field("item_id") != pc.field("neighbour_id"))
    item = others["item_id"].to_numpy().astype(np.int64)
    other = others["neighbour_id"].to_numpy().astype(np.int64)
    degree = np.bincount(item, minlength=n_items) + np.bincount(other, minlength=n_items)
    degree = np.maximum(degree, 1)

    rng = np.random.default_rng(seed)
    at = np.ascontiguousarray(10 * _draw_start(item, other, n_items, rng).T)  # [2, I]
    for round_number in range(rounds):
        pull = _pull_forces(at[:, item] - at[:, other])  # [2, E]
        move = _sum_forces(item, pull, n_items) - _sum_forces(other, pull, n_items)
        move = move / degree
        for strangers in rng.integers(0, n_items, (PUSHES, n_items)):
            move += _push_forces(at - at[:, strangers])
        at += STEP * (1 - round_number / rounds) * move

    low, high = np.quantile(at, OUTLIERS, axis=1)[..., None]
    return np.clip((at - low) / np.maximum(high - low, 1e-9), 0, 1).T


def _pull_forces(gap: np.ndarray) -> np.ndarray:
    square = (gap**2).sum(axis=0)
    return np.clip(-2 * gap / (1 + square), -MAX_FORCE, MAX_FORCE)


def _push_forces(gap: np.ndarray) -> np.ndarray:
    square = (gap**2).sum(axis=0)
    return np.clip(2 * gap / ((0.01 + square) * (1 + square)), -MAX_FORCE, MAX_FORCE)


def _draw_start(
    item: np.ndarray, other: np.ndarray, n_items: int, rng: np.random.Generator
) -> np.ndarray:
    """Return random positions, averaged along the graph, then ranked against outliers."""
    from scipy import sparse  # not part of the light install, whose pages have no map

    links = sparse.csr_array((np.ones(len(item)), (item, other)), shape=(n_items, n_items))
    walk = links + links.T + sparse.eye_array(n_items, format="csr")
    walk = sparse.csr_array(sparse.diags_array(1 / walk.sum(axis=1)) @ walk)

    at = rng.standard_normal((n_items, 2))
    for _ in range(SMOOTHINGS):
        at = walk @ at
        at -= at.mean(axis=0)
        at = np.linalg.qr(at)[0]
    ranks = at.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    return ranks / n_items - 0.5


def _sum_forces(rows: np.ndarray, forces: np.ndarray, n: int) -> np.ndarray:
    return np.stack([np.bincount(rows, force, n) for force in forces])  # [2, n]
