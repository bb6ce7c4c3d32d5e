"""The embedded dataset: raw files of a sticker shop in Amazon's 2014 format, generated.

Images and texts are real (stickers.py), shoppers are synthetic (shoppers.py). About 3 % of the stickers have no image,
1 % have a broken one, 2 % have no text, and 1 % of the reviews are duplicates, as in a real crawl. Everything depends
on the parameters alone: two runs write the same bytes.
"""

import gzip
import html
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
from PIL import Image

import schemas
from pipeline import io as files
from pipeline.sources.base import PLANTED
from pipeline.sources.shoppers import look_number, purchases
from pipeline.sources.stickers import Sticker, drawings, look, stickers

NO_IMAGE, BROKEN_IMAGE, NO_TEXT, TWICE = 0.03, 0.01, 0.02, 0.01  # shares of stickers, the last of reviews
FOLDER = "pictures"  # of images, beside the metadata; metadata names pictures/<code>.png
SUMMARIES = ("Not for me", "Hm", "It is okay", "Nice", "Love it")  # by stars; nothing about the sticker


def make(
    users: int, items: int, seed: int, raw: Path, progress: Callable[[list[str]], Iterable[str]]
) -> dict[str, str]:
    """Write reviews, metadata and images, whose names `progress` wraps; return role -> file name in `raw`."""
    shop = stickers(items)
    rng = np.random.default_rng((seed, 1))
    fate = rng.permutation(len(shop)) / len(shop)  # the first share has no image, the next a broken one
    textless = rng.permutation(len(shop)) / len(shop) < NO_TEXT
    looks = _draw(shop, fate, raw / FOLDER, progress)
    _write_planted(raw / PLANTED, shop, looks)
    meta = [_metadata(s, fate[i] >= NO_IMAGE, not textless[i]) for i, s in enumerate(shop)]
    _write_lines(raw / "meta_Stickers.json.gz", meta)
    _write_lines(raw / "reviews_Stickers.json.gz", _reviews(shop, looks, users, seed, rng))
    return {"reviews": "reviews_Stickers.json.gz", "metadata": "meta_Stickers.json.gz"}


def _draw(
    shop: list[Sticker], fate: np.ndarray, folder: Path, progress: Callable[[list[str]], Iterable[str]]
) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    looks = np.empty((len(shop), 2), np.int64)
    codes = [s.code for s in shop]
    for i, (code, image) in enumerate(zip(progress(codes), drawings(codes), strict=True)):
        looks[i] = look(image)
        if fate[i] >= NO_IMAGE:
            broken = fate[i] < NO_IMAGE + BROKEN_IMAGE
            (folder / f"{code}.png").write_bytes(_damaged(image, i) if broken else _png(image))
    return looks


def _write_planted(path: Path, shop: list[Sticker], looks: np.ndarray) -> None:
    numbers = {
        "category": np.unique([s.category for s in shop], return_inverse=True)[1],
        "subcategory": np.unique([s.subcategory for s in shop], return_inverse=True)[1],
        "colour": looks[:, 0],
        "look": look_number(looks[:, 0], looks[:, 1]),
    }
    columns = {name: pa.array(values.astype(np.int32)) for name, values in numbers.items()}
    files.write_table(pa.table({"asin": [s.asin for s in shop]} | columns), path, schemas.PLANTED)


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=3)
    return data.getvalue()


def _damaged(image: Image.Image, i: int) -> bytes:
    data = _png(image)
    return data[: len(data) // 2] if i % 2 else b"<!DOCTYPE html><html><body>Sorry, no such picture</body></html>"


def _metadata(sticker: Sticker, has_image: bool, has_text: bool) -> str:
    record: dict[str, object] = {"asin": sticker.asin}
    if has_text:
        also = [alias for alias in sticker.aliases if alias.lower() != sticker.name.lower()]
        record |= {
            "title": sticker.name,
            "categories": [[html.escape(sticker.category), sticker.subcategory]],
            "description": f"<p>{html.escape(', '.join(also))}</p>" if also else "",
        }
    if has_image:
        record["imUrl"] = f"{FOLDER}/{sticker.code}.png"
    return repr(record)


def _reviews(shop: list[Sticker], looks: np.ndarray, users: int, seed: int, rng: np.random.Generator) -> list[str]:
    category = np.unique([s.category for s in shop], return_inverse=True)[1]
    subcategory = np.unique([s.subcategory for s in shop], return_inverse=True)[1]
    bought = purchases(category, subcategory, looks[:, 0], looks[:, 1], users, seed).to_pylist()
    lines = [
        orjson.dumps(
            {
                "reviewerID": f"S{row['user']:06d}",
                "asin": shop[row["item"]].asin,
                "overall": float(row["stars"]),
                "summary": SUMMARIES[row["stars"] - 1],
                "reviewText": "",
                "unixReviewTime": row["timestamp"],
            }
        ).decode()
        for row in bought
    ]
    twice = rng.choice(len(lines), round(TWICE * len(lines)), replace=False)
    return lines + [lines[i] for i in twice]


def _write_lines(path: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    files.write_bytes(path, gzip.compress(text, compresslevel=6, mtime=0))
