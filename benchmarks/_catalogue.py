"""Synthetic catalogue of any size: long-tailed interactions, and texts and small images that depend on the category."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PAIRS = 6  # interactions per user
CATEGORIES, WORDS, LENGTH = (
    40,
    4000,
    24,
)  # categories, vocabulary size, words per text (a fifth from its category)
SIDE = 24  # pixels
INTERACTIONS, ITEMS, IMAGES = "interactions.parquet", "items.jsonl", "images.zip"


def write(folder: Path, items: int, users: int, with_images: bool = True) -> None:
    """Write INTERACTIONS, ITEMS and, unless told otherwise, IMAGES; the content depends on both numbers only."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(items)
    category = rng.integers(0, CATEGORIES, items)
    pq.write_table(_interactions(items, users, category, rng), folder / INTERACTIONS)
    with (folder / ITEMS).open("w") as file:
        file.writelines(_texts(category, rng))
    if not with_images:
        return
    with zipfile.ZipFile(folder / IMAGES, "w") as archive:
        for item, data in enumerate(_images(category, rng)):
            archive.writestr(f"{item}.jpg", data)


def _interactions(
    items: int, users: int, category: np.ndarray, rng: np.random.Generator
) -> pa.Table:
    """Draw interactions, half of them within the user's category and at least one per item."""
    n = PAIRS * users
    popular = np.cumsum(np.arange(1, items + 1) ** -0.7)
    user = np.concatenate([np.arange(n) % users, rng.integers(0, users, items)])
    item = np.concatenate([np.searchsorted(popular, popular[-1] * rng.random(n)), np.arange(items)])
    by_category = np.argsort(category, kind="stable")
    starts = np.searchsorted(category[by_category], np.arange(CATEGORIES + 1))
    taste = user[:n] % CATEGORIES
    own = by_category[starts[taste] + (rng.random(n) * np.diff(starts)[taste]).astype(int)]
    item[:n] = np.where(rng.random(n) < 0.5, own, item[:n])
    names = (
        pa.array([f"{letter}{i}" for i in column.tolist()])
        for letter, column in (("u", user), ("", item))
    )
    return pa.table(
        [*names, pa.array(rng.permutation(len(user)))], names=["user", "item", "timestamp"]
    )


def _texts(category: np.ndarray, rng: np.random.Generator) -> Iterator[str]:
    for item, kind in enumerate(category.tolist()):
        own = rng.random(LENGTH) < 0.2
        words = np.where(
            own, WORDS + 20 * kind + rng.integers(0, 20, LENGTH), rng.integers(0, WORDS, LENGTH)
        )
        title, *rest = (f"w{word}" for word in words.tolist())
        line = {
            "item": str(item),
            "title": title,
            "categories": [f"c{kind}"],
            "description": " ".join(rest),
        }
        yield f"{json.dumps(line)}\n"


def _images(category: np.ndarray, rng: np.random.Generator) -> Iterator[bytes]:
    colours = np.random.default_rng(0).integers(0, 256, (CATEGORIES, 1, 1, 3))
    for kind in category.tolist():
        pixels = colours[kind] + rng.normal(0, 40, (SIDE, SIDE, 3))
        out = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=80)
        yield out.getvalue()
