"""The map: a still picture in which items of similar features lie close together."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from alignrec.pipeline import io
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.report.gallery import CELL, find_images
from alignrec.pipeline.report.outputs import Outputs

if TYPE_CHECKING:
    from PIL import Image

MAX_ITEMS = 5_000  # placed; of larger catalogues a sample
MIN_ITEMS = 5
PERPLEXITY = 30  # of t-SNE, about the neighbours that pull at an item
ROUNDS = 500
SIZE = np.array([3200, 1920])  # pixels, some three for one of a page
GAP = 8  # pixels between pictures
DOT = 8  # pixels, radius of an item without a picture
GREY = (140, 144, 156, 150)  # seen on white and on black
CORNER = 14  # pixels, radius of a picture's corners
QUALITY = 80


class ItemMap(NamedTuple):
    """Centres of items, in pixels."""

    items: Sequence[int]
    places: np.ndarray  # int64 [I, 2]
    pictured: Mapping[int, tuple[int, int]]  # item_id -> centre of its picture


def place_items(outputs: Outputs, seed: int) -> ItemMap | None:
    """Place the items of the released feature set by t-SNE; None where nothing tells them apart."""
    folder = outputs.layout.features(outputs.released)
    if outputs.items is None or not any(folder.glob("features-*.parquet")):
        return None

    drawn = np.random.default_rng(seed).permutation(len(outputs.items))[:MAX_ITEMS]
    units, directed = unit_rows(io.map_features(folder)[drawn])
    items, units = drawn[directed], units[directed]
    if len(items) < MIN_ITEMS or units.shape[1] < 2 or not np.ptp(units, axis=0).any():
        return None

    at = _embed(units, seed % 2**32)
    at = (at - at.min(axis=0)) / np.ptp(at, axis=0)
    places = (CELL + at * (SIZE - 2 * CELL)).round().astype(int)
    has_image = find_images(outputs, len(outputs.items))
    return ItemMap(items.tolist(), places, _find_room(items.tolist(), places, has_image))


def _embed(units: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(units) - 1) / 3)
    with threadpool_limits(1):  # the order of sums decides every place
        embedding = TSNE(perplexity=perplexity, max_iter=ROUNDS, random_state=seed, n_jobs=1)
        places: np.ndarray = embedding.fit_transform(units)
    return places


def _find_room(
    items: Sequence[int], places: np.ndarray, has_image: Sequence[bool]
) -> dict[int, tuple[int, int]]:
    """Choose items whose pictures do not overlap."""
    pictured: dict[int, tuple[int, int]] = {}
    for item, (x, y) in zip(items, places.tolist(), strict=True):
        room = CELL + GAP
        is_free = all(max(abs(x - a), abs(y - b)) >= room for a, b in pictured.values())
        if has_image[item] and is_free:
            pictured[item] = (x, y)
    return pictured


def draw_map(placed: ItemMap, thumbnails: Mapping[int, Image.Image]) -> str:
    """Return the map as base64 WebP."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGBA", tuple(SIZE.tolist()))
    canvas = ImageDraw.Draw(picture)
    for x, y in placed.places.tolist():
        canvas.circle((x, y), DOT, GREY)

    mask = Image.new("L", (CELL, CELL))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, CELL - 1, CELL - 1), CORNER, 255)
    for item, (x, y) in placed.pictured.items():
        if item in thumbnails:
            left, top = x - CELL // 2, y - CELL // 2
            picture.paste(thumbnails[item], (left, top), mask)
            box = (left, top, left + CELL - 1, top + CELL - 1)
            canvas.rounded_rectangle(box, CORNER, outline=GREY, width=2)

    webp = BytesIO()
    picture.save(webp, "WEBP", quality=QUALITY)
    return base64.b64encode(webp.getvalue()).decode()
