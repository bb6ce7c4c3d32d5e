"""The embedded dataset: generated raw files of a sticker shop in Amazon's 2014 format, the same bytes each time.

Images and texts are real (stickers.py), shoppers are synthetic (shoppers.py). As in a real crawl, images and texts are
missing, images are broken, and reviews are duplicates.
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
FOLDER = "pictures"  # next to the metadata, which names pictures/<code>.png
PAGE = b"<!DOCTYPE html><html><body>Sorry, no such picture</body></html>"
SUMMARIES = ("Not for me", "Hm", "It is okay", "Nice", "Love it")  # by stars; nothing about the sticker


def make(
    users: int, items: int, seed: int, raw: Path, progress: Callable[[list[str]], Iterable[str]]
) -> dict[str, str]:
    """Write reviews, metadata, images and table PLANTED; return role -> file name in `raw`."""
    shop = stickers(items)
    rng = np.random.default_rng((seed, 1))
    fate = rng.permutation(len(shop)) / len(shop)  # the first share has no image, the next a broken one
    textless = rng.permutation(len(shop)) / len(shop) < NO_TEXT
    colour, shape = _draw(shop, fate, raw / FOLDER, progress).T
    groups = {
        name: np.unique([getattr(s, name) for s in shop], return_inverse=True)[1]
        for name in ("category", "subcategory")
    }
    planted = groups | {"colour": colour, "look": look_number(colour, shape)}
    columns = {name: pa.array(values.astype(np.int32)) for name, values in planted.items()}
    files.write_table(pa.table({"asin": [s.asin for s in shop]} | columns), raw / PLANTED, schemas.PLANTED)
    meta = [_metadata(s, fate[i] >= NO_IMAGE, not textless[i]) for i, s in enumerate(shop)]
    _write_lines(raw / "meta_Stickers.json.gz", meta)
    bought = purchases(groups["category"], groups["subcategory"], colour, shape, users, seed)
    _write_lines(raw / "reviews_Stickers.json.gz", _reviews(shop, bought, rng))
    return {"reviews": "reviews_Stickers.json.gz", "metadata": "meta_Stickers.json.gz"}


def _draw(
    shop: list[Sticker], fate: np.ndarray, folder: Path, progress: Callable[[list[str]], Iterable[str]]
) -> np.ndarray:
    """Write the images and return the look of all, int [I, 2]: colour, shape."""
    folder.mkdir(parents=True, exist_ok=True)
    looks = np.empty((len(shop), 2), np.int64)
    codes = [s.code for s in shop]
    for i, (code, image) in enumerate(zip(progress(codes), drawings(codes), strict=True)):
        looks[i] = look(image)
        if fate[i] >= NO_IMAGE:
            data = _png(image)
            if fate[i] < NO_IMAGE + BROKEN_IMAGE:  # by turns half the file and a web page
                data = data[: len(data) // 2] if i % 2 else PAGE
            (folder / f"{code}.png").write_bytes(data)
    return looks


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=3)
    return data.getvalue()


def _metadata(sticker: Sticker, has_image: bool, has_text: bool) -> str:
    """Return a Python literal with HTML, as Amazon's metadata are."""
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


def _reviews(shop: list[Sticker], bought: pa.Table, rng: np.random.Generator) -> list[str]:
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
        for row in bought.to_pylist()
    ]
    twice = rng.choice(len(lines), round(TWICE * len(lines)), replace=False)
    return lines + [lines[i] for i in twice]


def _write_lines(path: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    files.write_bytes(path, gzip.compress(text, compresslevel=6, mtime=0))
