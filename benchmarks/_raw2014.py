"""Raw files for the rehearsal in Amazon's 2014 format: reviews, metadata, images, and image features by ASIN."""

from __future__ import annotations

import gzip
import json
import math
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.sparse.linalg import svds

from alignrec.pipeline.sources.amazon import Reader2014
from alignrec.pipeline.sources.base import Product
from alignrec.pipeline.sources.sample import SampleSource
from benchmarks import _baby

REVIEWS, METADATA, IMAGE_FEATURES = (
    "reviews_Baby_5.json.gz",
    "meta_Baby.json.gz",
    "image_features_Baby.b",
)
PICTURES_FOLDER = "pictures"
PICTURE = re.compile(r"""(['"]imUrl['"]: ['"])""")  # before the path of a picture
WIDTH = 4096  # of Amazon's image features
# of an item in the published counts, as Amazon's: side of the picture in pixels, words of the description
SIDE, WORDS = 300, 60
START, SPAN = 1_262_304_000, 4 * 365 * 86_400  # seconds in which reviews are written: 2010 to 2013
# orders of the channels, so that an item has another picture than others of the same sticker
COLOURS = ("RGB", "BRG", "GBR", "GRB", "BGR", "RBG")
DIRECTIONS, GROUPS = 64, 100  # of items with common buyers
SHOPPERS = 400  # minimum at which a few hundred stickers have five buyers each


def write(raw: Path, items: int) -> list[dict[str, Any]]:
    """Write the files of `items` stickers to `raw` and return their metadata."""
    raw.mkdir(parents=True, exist_ok=True)
    source = SampleSource(kind="sample", items=items, users=max(SHOPPERS, 2 * items))
    made = source.make(raw, iter)
    (raw / made["reviews"]).rename(raw / REVIEWS)
    (raw / made["metadata"]).rename(raw / METADATA)
    reader = Reader2014()
    products = [reader.parse(line) for line in reader.lines(raw / METADATA)]
    rng = np.random.default_rng(0)
    with (raw / IMAGE_FEATURES).open("wb") as f:
        for product in products:
            f.write(
                product["asin"].encode() + rng.random(WIDTH, np.float32).astype("<f4").tobytes()
            )
    return products


def write_published(raw: Path) -> None:
    """Write reviews of Baby's published users and items to `raw`, with stickers in several colours as items.

    Items that the same users buy get stickers that are near each other in Unicode's order, so that
    contents predict purchases.
    """
    folder = raw / PICTURES_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    table = _baby.read_interactions()
    users, items, ratings = (table[name].to_pylist() for name in ("userID", "itemID", "rating"))
    rng = np.random.default_rng(0)
    times = (START + rng.integers(0, SPAN, len(users))).tolist()  # those of the file are all 0
    with gzip.open(raw / REVIEWS, "wt", encoding="utf-8") as file:
        for user, item, rating, time in zip(users, items, ratings, times, strict=True):
            review = {
                "reviewerID": f"A{user:012d}",
                "asin": _asin(item),
                "overall": rating,
                "unixReviewTime": time,
            }
            file.write(f"{json.dumps(review)}\n")

    count = max(items) + 1
    stickers, images = _read_stickers()
    place = _place_by_buyers(users, items)
    with gzip.open(raw / METADATA, "wt", encoding="utf-8") as file:
        for item in range(count):
            number, copy = divmod(place[item], math.ceil(count / len(stickers)))
            colours = dict(zip("RGB", images[number].split(), strict=True))
            image = Image.merge("RGB", [colours[channel] for channel in COLOURS[copy]])
            image.resize((SIDE, SIDE)).save(folder / f"{item}.jpg", quality=90)
            file.write(f"{_describe(item, stickers[number], stickers, rng)!r}\n")


def _place_by_buyers(users: list[int], items: list[int]) -> list[int]:
    """Return the place of each item in an order that keeps items with common buyers together."""
    bought = sp.coo_array((np.ones(len(users)), (items, users))).tocsr()
    by_user, by_item = (np.sqrt(np.maximum(bought.sum(axis), 1)) for axis in (0, 1))
    weighted = sp.diags_array(1 / by_item) @ bought @ sp.diags_array(1 / by_user)
    size = min(weighted.shape)
    left, _, _ = svds(weighted, k=min(DIRECTIONS, size - 1), v0=np.ones(size))
    units = left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-9)
    group = kmeans2(units, GROUPS, minit="++", rng=0)[1]
    place: list[int] = np.argsort(np.argsort(group, kind="stable")).tolist()
    return place


def _read_stickers() -> tuple[list[Product], list[Image.Image]]:
    """Return the stickers of the embedded dataset that have a text and a picture."""
    reader = Reader2014()
    stickers: list[Product] = []
    images: list[Image.Image] = []
    with tempfile.TemporaryDirectory() as folder:
        made = SampleSource(kind="sample").make(Path(folder), iter)
        for line in reader.lines(Path(folder, made["metadata"])):
            sticker = reader.product(reader.parse(line))
            if not (sticker.title and sticker.image_urls):
                continue
            with suppress(OSError):  # a broken picture
                image = Image.open(Path(folder, sticker.image_urls[0]))
                image.load()
                stickers.append(sticker)
                images.append(image)
    return stickers, images


def _asin(item: int) -> str:
    return f"B{item:09d}"


def _describe(
    item: int, sticker: Product, stickers: list[Product], rng: np.random.Generator
) -> dict[str, Any]:
    """Return the metadata of an item, with words of stickers in its category as description."""
    kin = [other.title for other in stickers if other.categories == sticker.categories]
    words = " ".join(kin).split()
    return {
        "asin": _asin(item),
        "title": f"{sticker.title}, No. {item}",
        "categories": [sticker.categories],
        "description": " ".join(rng.choice(words, WORDS).tolist()),
        "imUrl": f"{PICTURES_FOLDER}/{item}.jpg",
    }


def give_addresses(metadata: Path, server: str) -> None:
    """Turn the paths of pictures in the metadata into addresses of a server, as Amazon's are."""
    with gzip.open(metadata, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    with gzip.open(metadata, "wt", encoding="utf-8") as file:
        for line in lines:
            file.write(PICTURE.sub(rf"\g<1>{server}/", line))


def text(product: dict[str, Any]) -> str:
    return f"{product.get('title', '')} {product.get('description', '')}".strip()
