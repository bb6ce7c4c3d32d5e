"""Generator of the embedded dataset, a sticker shop in Amazon's 2014 format.

Images are OpenMoji's (CC BY-SA 4.0); shoppers are synthetic.
"""

import gzip
import html
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.sources.base import PLANTED_FILE
from alignrec.pipeline.sources.shoppers import draw_purchases, look_number
from alignrec.pipeline.sources.stickers import Sticker, choose_stickers, draw_glyphs, measure_look

# defects as in a real crawl: shares of stickers, and of reviews that are duplicates
NO_IMAGE_SHARE = 0.03
BROKEN_IMAGE_SHARE = 0.01
NO_TEXT_SHARE = 0.02
REPEATED_SHARE = 0.01
PICTURES_FOLDER = "pictures"  # folder next to the metadata, which refers to pictures/<code>.png
PAGE = b"<!DOCTYPE html><html><body>Sorry, no such picture</body></html>"
# by number of stars, independent of the sticker
SUMMARIES = ("Not for me", "Hm", "It is okay", "Nice", "Love it")
FILES = {"reviews": "reviews_Stickers.json.gz", "metadata": "meta_Stickers.json.gz"}  # role -> name

ProgressBar = Callable[[list[str]], Iterable[str]]  # wraps names in a progress bar


def make_shop(
    users: int, items: int, seed: int, raw: Path, progress: ProgressBar
) -> dict[str, str]:
    """Write images, metadata, reviews and the planted truth into `raw`.

    Return role -> file name.
    """
    shop = choose_stickers(items)
    rng = np.random.default_rng((seed, 1))
    fate = rng.permutation(len(shop)) / len(shop)  # the lowest get no image, the next a broken one
    has_text = rng.permutation(len(shop)) / len(shop) >= NO_TEXT_SHARE

    colour, shape = _draw_images(shop, fate, raw / PICTURES_FOLDER, progress).T
    category = _number_groups([sticker.category for sticker in shop])
    subcategory = _number_groups([sticker.subcategory for sticker in shop])
    truth = {
        "category": category,
        "subcategory": subcategory,
        "colour": colour,
        "look": look_number(colour, shape),
    }
    columns = {name: pa.array(values.astype(np.int32)) for name, values in truth.items()}
    planted = pa.table({"asin": [sticker.asin for sticker in shop], **columns})
    io.write_table(planted, raw / PLANTED_FILE, schemas.PLANTED)

    metadata = _make_metadata(shop, has_text, fate >= NO_IMAGE_SHARE)
    _write_lines(raw / FILES["metadata"], metadata)
    purchases = draw_purchases(category, subcategory, colour, shape, users, seed)
    reviews = _make_reviews(shop, purchases)
    repeated = rng.choice(len(reviews), round(REPEATED_SHARE * len(reviews)), replace=False)
    _write_lines(raw / FILES["reviews"], reviews + [reviews[i] for i in repeated])
    return dict(FILES)


def _number_groups(names: list[str]) -> np.ndarray:
    _, numbers = np.unique(names, return_inverse=True)
    return numbers


def _draw_images(
    shop: list[Sticker], fate: np.ndarray, folder: Path, progress: ProgressBar
) -> np.ndarray:
    """Write the images and return their looks, int [I, 2]: colour, shape."""
    folder.mkdir(parents=True, exist_ok=True)
    codes = [sticker.code for sticker in shop]
    looks = np.empty((len(shop), 2), np.int64)
    for i, (code, image) in enumerate(zip(progress(codes), draw_glyphs(codes), strict=True)):
        looks[i] = measure_look(image)
        if fate[i] < NO_IMAGE_SHARE:
            continue

        path = folder / f"{code}.png"
        image.save(path, "PNG", compress_level=3)
        if fate[i] < NO_IMAGE_SHARE + BROKEN_IMAGE_SHARE:  # alternately truncated and a web page
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2] if i % 2 else PAGE)
    return looks


def _make_metadata(shop: list[Sticker], has_text: np.ndarray, has_image: np.ndarray) -> list[str]:
    """Return a Python literal per sticker, as in Amazon's metadata."""
    lines = []
    for i, sticker in enumerate(shop):
        record: dict[str, object] = {"asin": sticker.asin}
        if has_text[i]:
            record["title"] = sticker.name
            record["categories"] = [[html.escape(sticker.category), sticker.subcategory]]
            record["description"] = _describe_aliases(sticker)
        if has_image[i]:
            record["imUrl"] = f"{PICTURES_FOLDER}/{sticker.code}.png"
        lines.append(repr(record))
    return lines


def _describe_aliases(sticker: Sticker) -> str:
    aliases = [alias for alias in sticker.aliases if alias.lower() != sticker.name.lower()]
    return f"<p>{html.escape(', '.join(aliases))}</p>" if aliases else ""


def _make_reviews(shop: list[Sticker], purchases: pa.Table) -> list[str]:
    lines = []
    for purchase in purchases.to_pylist():
        review = {
            "reviewerID": f"S{purchase['user']:06d}",
            "asin": shop[purchase["item"]].asin,
            "overall": float(purchase["stars"]),
            "summary": SUMMARIES[purchase["stars"] - 1],
            "reviewText": "",
            "unixReviewTime": purchase["timestamp"],
        }
        lines.append(orjson.dumps(review).decode())
    return lines


def _write_lines(path: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    io.write_bytes(path, gzip.compress(text, compresslevel=6, mtime=0))
