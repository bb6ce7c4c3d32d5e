"""Raw files for the rehearsal in Amazon's 2014 format: reviews, metadata, images, and image features by ASIN."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np

from alignrec.pipeline.sources import sticker_shop
from alignrec.pipeline.sources.amazon import Reader2014
from alignrec.pipeline.sources.sample import SampleSource

REVIEWS, METADATA, IMAGE_FEATURES = (
    "reviews_Baby_5.json.gz",
    "meta_Baby.json.gz",
    "image_features_Baby.b",
)
PICTURE = re.compile(r"""(['"]imUrl['"]: ['"])""")  # before the path of a picture
WIDTH = 4096  # of Amazon's image features
SHOPPERS = 400  # minimum at which a few hundred stickers have five buyers each


def write(raw: Path, items: int) -> list[dict[str, Any]]:
    """Write the files of `items` stickers to `raw` and return their metadata."""
    raw.mkdir(parents=True, exist_ok=True)
    source = SampleSource(kind="sample", items=items, users=max(SHOPPERS, 2 * items))
    made = sticker_shop.make_shop(source.users, source.items, source.seed, raw, lambda codes: codes)
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


def give_addresses(metadata: Path, server: str) -> None:
    """Turn the paths of pictures in the metadata into addresses of a server, as Amazon's are."""
    with gzip.open(metadata, "rt", encoding="utf-8") as file:
        lines = file.readlines()
    with gzip.open(metadata, "wt", encoding="utf-8") as file:
        for line in lines:
            file.write(PICTURE.sub(rf"\g<1>{server}/", line))


def text(product: dict[str, Any]) -> str:
    return f"{product.get('title', '')} {product.get('description', '')}".strip()
