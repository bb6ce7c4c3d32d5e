"""Raw files as Amazon's of 2014 for the rehearsal: reviews, metadata, images next to it, and image features by ASIN.

What they are of: stickers of the embedded dataset, or films of MovieLens with posters and plots, where those are there.
"""

from __future__ import annotations

import csv
import gzip
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.sources import amazon2014, sticker_shop
from pipeline.sources.sample import SampleSource
from pipeline.vectors.records import WIDTH

REVIEWS, METADATA, IMAGE_FEATURES = "reviews_Baby_5.json.gz", "meta_Baby.json.gz", "image_features_Baby.b"
SHOPPERS = 400  # the fewest that leave each of some hundred stickers five buyers


def write(raw: Path, items: int, films: Path | None) -> list[dict[str, Any]]:
    """Write the files of `items` products into `raw`, and return what their metadata say.

    Args:
        raw: a folder, made if it is absent.
        items: products, before the 5-core.
        films: folder of the development data `movies`; None takes stickers.
    """
    raw.mkdir(parents=True, exist_ok=True)
    _stickers(raw, items) if films is None else _films(raw, items, films)
    products = [amazon2014.parse(line) for line in amazon2014.lines(raw / METADATA)]
    rng = np.random.default_rng(0)
    with (raw / IMAGE_FEATURES).open("wb") as f:
        for product in products:
            f.write(product["asin"].encode() + rng.random(WIDTH, np.float32).astype("<f4").tobytes())
    return products


def text(product: dict[str, Any]) -> str:
    """Return what a tokenizer may learn from."""
    return f"{product.get('title', '')} {product.get('description', '')}".strip()


def _stickers(raw: Path, items: int) -> None:
    source = SampleSource(kind="sample", items=items, users=max(SHOPPERS, 2 * items))
    made = sticker_shop.make(source.users, source.items, source.seed, raw, lambda codes: codes)
    (raw / made["reviews"]).rename(raw / REVIEWS)
    (raw / made["metadata"]).rename(raw / METADATA)


def _films(raw: Path, items: int, films: Path) -> None:
    """Write the films that most people rated: posters, titles, genres and plots."""
    with (films / "interactions.csv").open() as f:
        ratings = list(csv.DictReader(f))
    chosen = {item for item, _ in Counter(row["item"] for row in ratings).most_common(items)}
    described = [orjson.loads(line) for line in (films / "items.jsonl").read_bytes().splitlines()]
    _write_lines(raw / METADATA, (repr(_film(film)) for film in described if film["item"] in chosen))
    _write_lines(raw / REVIEWS, (orjson.dumps(_review(row)).decode() for row in ratings if row["item"] in chosen))
    (raw / "images").mkdir(exist_ok=True)
    for item in chosen:
        if (poster := films / "images" / f"{item}.jpg").is_file():
            shutil.copyfile(poster, raw / "images" / poster.name)


def _film(film: dict[str, Any]) -> dict[str, Any]:
    return {
        "asin": _asin(film["item"]),
        "title": film["title"],
        "categories": [film["genres"]],
        "description": film["description"],
        "imUrl": f"images/{film['item']}.jpg",
    }


def _review(row: dict[str, str]) -> dict[str, Any]:
    return {
        "reviewerID": f"U{row['user']}",
        "asin": _asin(row["item"]),
        "overall": float(row["rating"]),
        "unixReviewTime": int(row["timestamp"]),
    }


def _asin(item: str) -> str:
    return f"F{int(item):09d}"


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), compresslevel=1, mtime=0))
