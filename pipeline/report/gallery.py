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
from alignrec.pipeline.features.names import CEILINGS, LINEAR
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.report.table import CONTROLS

if TYPE_CHECKING:
    from PIL import Image

CELL = 80  # pixels of an image in a sheet
COLUMNS = 20  # images per row, and rows, of a sheet: 1600 x 1600 pixels, which phones can decode
BACKGROUND = (255, 255, 255)
NEAR = 6  # neighbours of an item
SEARCHABLE, MAPPED = (
    3_000,
    100_000,
)  # maximum items of catalogues shown with all images, and with a map
SMALLEST = 10  # minimum items per category
SAME = 0.95  # a level of categories is skipped if one category has this share
CLASSES = 8  # most frequent categories that get their own colour
SETS = 3  # feature sets side by side
# the map: a layout by UMAP's forces (McInnes et al. 2018, a = b = 1) on the item graph
WIDTH, HEIGHT, MARGIN = 10_000, 6_200, 120
ROUNDS, LEAST_ROUNDS, MOVES = (
    200,
    120,
    4_000_000,
)  # bounds of the rounds, and budget of moves over all rounds
PUSHES = 5  # random items that repel each item, per round
SMOOTHING = 40  # averaging steps of the start
STEP = 0.3
FARTHEST = 4.0  # maximum move along an axis by one force


@dataclass(frozen=True)
class Sheets:
    """Thumbnails of many items, packed into a few JPEG sheets."""

    data: list[str]  # base64 JPEG
    place: dict[int, int]  # item_id -> cell, counted through all sheets

    def table(self, titles: Sequence[str], notes: Sequence[str]) -> dict[str, Any]:
        return {
            "titles": titles,
            "notes": notes,
            "cells": [self.place.get(i, -1) for i in range(len(titles))],
        }


def make_thumbnails(tables: Iterable[pa.Table], wanted: set[int]) -> dict[int, Image.Image]:
    """Return item_id -> RGB image, CELL x CELL, uncropped; tables have item_id and image (JPEG)."""
    from PIL import Image

    images = {}
    for table in tables:
        for item, data in zip(table["item_id"].to_pylist(), table["image"], strict=True):
            if item not in wanted or not data.is_valid:
                continue
            try:
                image = Image.open(BytesIO(data.as_py()), formats=["JPEG"]).convert("RGB")
            except OSError:
                continue
            image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
            images[item] = Image.new("RGB", (CELL, CELL), BACKGROUND)
            images[item].paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return images


def stored_pictures(images: Path, items: pa.Table, at: dict[str, int]) -> Iterator[pa.Table]:
    """Yield `item_id` (position in `items`) and `image` of images whose hash `items` lists."""
    hashes = items["image_sha256"].to_pylist()
    for path in sorted(images.glob("images-*.parquet")):
        table = io.read_table(path, schemas.IMAGES, ["asin", "sha256", "image"])
        rows = [at.get(asin, -1) for asin in table["asin"].to_pylist()]
        matching = [
            i >= 0 and hashes[i] == sha256
            for i, sha256 in zip(rows, table["sha256"].to_pylist(), strict=True)
        ]
        yield pa.table({"item_id": pa.array(rows, pa.int32()), "image": table["image"]}).filter(
            pa.array(matching)
        )


def pack_sheets(images: Mapping[int, Image.Image]) -> Sheets:
    from PIL import Image

    items, data = sorted(images), []
    for start in range(0, len(items), COLUMNS * COLUMNS):
        part = items[start : start + COLUMNS * COLUMNS]
        sheet = Image.new("RGB", (COLUMNS * CELL, -(-len(part) // COLUMNS) * CELL), BACKGROUND)
        for i, item in enumerate(part):
            sheet.paste(images[item], (i % COLUMNS * CELL, i // COLUMNS * CELL))
        out = BytesIO()
        sheet.save(out, "JPEG", quality=80, optimize=True)
        data.append(base64.b64encode(out.getvalue()).decode())
    return Sheets(data, {item: i for i, item in enumerate(items)})


@dataclass(frozen=True)
class Neighbours:
    """Items of the gallery and the map, with their neighbours."""

    items: list[int]  # item_ids of the gallery
    sets: dict[
        str, dict[int, list[int]]
    ]  # feature set -> item_id -> neighbours; gallery items only, without a map
    columns: list[str]  # sets shown side by side, see `choose_columns`
    searchable: bool  # whether all items are shown, with images and neighbours
    mapped: bool  # whether all items are on the map
    classes: list[str]  # names of the most frequent categories, most frequent first
    colour: list[int]  # per item_id: index of its category in `classes`, or -1

    @property
    def shown(self) -> set[int]:
        if self.searchable:
            return set(range(len(self.colour)))
        return {
            *self.items,
            *(other for of in self.sets.values() for i in self.items for other in of.get(i, [])),
        }


def pick_neighbours(outputs: Outputs, gallery: int, seed: int) -> Neighbours | None:
    """Draw `gallery` items with neighbours; None without items or graphs. Above SEARCHABLE, only `columns` are read."""
    if outputs.items is None or not outputs.graphs:
        return None
    n = len(outputs.items)
    has_image = [False] * n
    if (images := outputs.image_facts) is not None:
        for item, status in zip(
            images["item_id"].to_pylist(), images["status"].to_pylist(), strict=True
        ):
            has_image[item] = status == "ok"
    taxonomy = outputs.items["categories"].to_pylist()
    items = choose_items([path[0] if path else "" for path in taxonomy], has_image, gallery, seed)
    names = sorted(
        outputs.graphs,
        key=lambda name: (name in CONTROLS, name != outputs.released, name != LINEAR, name),
    )
    names = [name for name in names if name not in ("constant", *CEILINGS)]
    first = choose_columns(names, outputs.released)
    shown = first if SEARCHABLE < n <= MAPPED else names
    sets = {
        name: nearest_neighbours(outputs.edges(name, None if n <= MAPPED else items), NEAR)
        for name in shown
    }
    return Neighbours(items, sets, first, n <= SEARCHABLE, n <= MAPPED, *colour_classes(taxonomy))


def colour_classes(paths: Sequence[Sequence[str]]) -> tuple[list[str], list[int]]:
    """Return the CLASSES most frequent categories, and each item's index among them, or -1.

    Categories are taken from the first level of the paths that has several.
    """
    table, colour = pa.array(paths, pa.list_(pa.string())), np.full(len(paths), -1)
    lengths = pc.list_value_length(table).to_numpy()
    for level in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > level)
        named = pc.list_element(table.take(pa.array(rows)), level)
        counts = {count["values"]: count["counts"] for count in pc.value_counts(named).to_pylist()}
        names = sorted(name for name, n in counts.items() if n >= SMALLEST)
        if len(names) > 1 and max(counts.values()) < SAME * len(rows):
            common = sorted(names, key=lambda name: -counts[name])[:CLASSES]
            colour[rows] = pc.fill_null(pc.index_in(named, pa.array(common)), -1).to_numpy()
            return common, colour.tolist()
    return [], colour.tolist()


def choose_columns(names: Sequence[str], released: str) -> list[str]:
    """Choose SETS of `names`: first the released set, another set and a control."""
    own = [name for name in names if name == released]
    controls = [name for name in names if name in CONTROLS]
    rivals = [
        name for name in names if name not in controls and not f"{name}-".startswith(f"{released}-")
    ]
    return list(dict.fromkeys([*own, *rivals[:1], *controls[:1], *rivals, *names]))[:SETS]


def choose_items(
    labels: Sequence[str], has_image: Sequence[bool], count: int, seed: int
) -> list[int]:
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    seen = Counter[tuple[bool, str]]()
    # every category once before any twice; items with images first
    rounds = {}
    for i in order:
        seen[not has_image[i], labels[i]] += 1
        rounds[i] = not has_image[i], seen[not has_image[i], labels[i]]
    return sorted(order, key=lambda i: rounds[i])[:count]


def nearest_neighbours(edges: pa.Table, count: int) -> dict[int, list[int]]:
    """Return item_id -> nearest other items, best first, from table EDGES."""
    item, other, rank = (edges[c].to_numpy() for c in ("item_id", "neighbour_id", "rank"))
    kept = item != other
    if not kept.any():  # no item has a vector, for example if every image is unreachable
        return {}
    order = np.lexsort((rank[kept], item[kept]))
    item, other = item[kept][order], other[kept][order]
    starts = np.flatnonzero(np.r_[True, item[1:] != item[:-1]])
    ends = np.r_[starts[1:], len(item)]
    return {
        int(item[a]): other[a : min(b, a + count)].tolist()
        for a, b in zip(starts, ends, strict=True)
    }


def item_titles(items: pa.Table) -> list[str]:
    return [
        title or asin
        for title, asin in zip(*(items[c].to_pylist() for c in ("title", "asin")), strict=True)
    ]


def category_paths(items: pa.Table) -> list[str]:
    return [" › ".join(path) for path in items["categories"].to_pylist()]


def map_positions(edges: pa.Table, n_items: int, seed: int) -> list[int]:
    """Return x and y of each item on the map, interleaved."""
    spread = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    rounds = min(ROUNDS, max(LEAST_ROUNDS, MOVES // max(n_items, 1)))
    return (
        (lay_out(edges, n_items, seed, rounds) * spread + MARGIN)
        .round()
        .astype(int)
        .ravel()
        .tolist()
    )


def lay_out(edges: pa.Table, n_items: int, seed: int, rounds: int = ROUNDS) -> np.ndarray:
    """Return positions float64 [I, 2] in 0 .. 1, from edges of schema EDGES."""
    if n_items < 3:
        return np.stack([np.arange(1, n_items + 1) / (n_items + 1), np.full(n_items, 0.5)], axis=1)
    item, other = (edges[c].to_numpy().astype(np.int64) for c in ("item_id", "neighbour_id"))
    kept = item != other
    item, other = item[kept], other[kept]
    rng = np.random.default_rng(seed)
    ends = np.maximum(
        np.bincount(item, minlength=n_items) + np.bincount(other, minlength=n_items), 1
    )
    at = np.ascontiguousarray(10 * _draw_start(item, other, n_items, rng).T)  # [2, I]
    for r in range(rounds):
        gap = at[:, item] - at[:, other]  # [2, E]
        pull = np.clip(-2 * gap / (1 + (gap**2).sum(axis=0)), -FARTHEST, FARTHEST)
        move = (_sum_forces(item, pull, n_items) - _sum_forces(other, pull, n_items)) / ends
        for others in rng.integers(0, n_items, (PUSHES, n_items)):
            gap = at - at[:, others]
            square = (gap**2).sum(axis=0)
            move += np.clip(2 * gap / ((0.01 + square) * (1 + square)), -FARTHEST, FARTHEST)
        at += STEP * (1 - r / rounds) * move
    low, high = np.quantile(at, [0.005, 0.995], axis=1)[..., None]  # outliers are clipped
    return np.clip((at - low) / np.maximum(high - low, 1e-9), 0, 1).T


def _draw_start(
    item: np.ndarray, other: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Return random positions, averaged along the graph, then ranked, so that no component is an outlier."""
    from scipy import sparse  # not part of the light install, whose pages have no map

    ones = np.ones(len(item))
    walk = sparse.csr_array((ones, (item, other)), shape=(n, n))
    walk = walk + walk.T + sparse.eye_array(n, format="csr")
    walk = sparse.csr_array(sparse.diags_array(1 / walk.sum(axis=1)) @ walk)
    at = rng.standard_normal((n, 2))
    for _ in range(SMOOTHING):
        at = walk @ at
        at -= at.mean(axis=0)
        at = np.linalg.qr(at)[0]
    return at.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") / n - 0.5


def _sum_forces(rows: np.ndarray, forces: np.ndarray, n: int) -> np.ndarray:
    return np.stack([np.bincount(rows, force, n) for force in forces])  # [2, n]
