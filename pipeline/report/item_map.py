"""The map: a still picture in which items of similar features lie close together."""

import base64
from io import BytesIO

import numpy as np
from threadpoolctl import threadpool_limits

from alignrec.pipeline import io
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.report.gallery import CELL, find_images, make_thumbnails
from alignrec.pipeline.report.outputs import Outputs

MAX_ITEMS = 5_000  # placed; of larger catalogues a sample
LEAST_ITEMS = 5
PERPLEXITY = 30  # of t-SNE, about the neighbours that pull at an item
ROUNDS = 500
PLACES = (38, 22)  # across and down; one item is shown at each
SPACING = CELL + 4  # pixels from picture to picture
QUALITY = 80


def draw_map(outputs: Outputs, seed: int) -> str:
    """Return the map of the released feature set as base64 WebP.

    Empty without images, or if the features tell no items apart.
    """
    folder = outputs.layout.features(outputs.released)
    if outputs.items is None or not any(folder.glob("features-*.parquet")):
        return ""
    pictured = np.array(sorted(find_images(outputs)), int)
    items = np.random.default_rng(seed).permutation(pictured)[:MAX_ITEMS]
    units, directed = unit_rows(io.map_features(folder)[items])
    items, units = items[directed], units[directed]
    if len(items) < LEAST_ITEMS or units.shape[1] < 2 or not np.ptp(units, axis=0).any():
        return ""

    places, shown = np.unique(_place(units, seed), axis=0, return_index=True)
    return _draw(outputs, items[shown].tolist(), places * SPACING)


def _place(units: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(units) - 1) / 3)
    with threadpool_limits(1):  # the order of sums decides every place
        embedding = TSNE(perplexity=perplexity, max_iter=ROUNDS, random_state=seed, n_jobs=1)
        at = embedding.fit_transform(units)
    at = (at - at.min(axis=0)) / np.ptp(at, axis=0)
    return (at * np.subtract(PLACES, 1)).round().astype(int)


def _draw(outputs: Outputs, items: list[int], corners: np.ndarray) -> str:
    from PIL import Image

    thumbnails = make_thumbnails(outputs.images("image"), set(items))
    picture = Image.new("RGBA", (PLACES[0] * SPACING, PLACES[1] * SPACING))
    for item, (left, top) in zip(items, corners.tolist(), strict=True):
        if item in thumbnails:
            picture.paste(thumbnails[item], (left, top))
    webp = BytesIO()
    picture.save(webp, "WEBP", quality=QUALITY)
    return base64.b64encode(webp.getvalue()).decode()
