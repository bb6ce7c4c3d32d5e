"""Item files to embed: JSON lines or CSV, and a folder of images.

A row has an identifier (`asin`, `item`, `item_id` or `id`). Its text is `text`, or is composed of title, brand,
categories and description as in the pipeline. Its image is the file that `image` names, or `<identifier>.<ending>`.
"""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import UserError, one_line
from pipeline.items.build import compose
from pipeline.items.parse import KEPT, Line, Reject, cleaned
from pipeline.sources.lines import LONGEST_LINE
from pipeline.sources.product import Product, as_list, as_text, json_lines, json_object
from pipeline.sources.sql import named

IDENTIFIERS = ("asin", "item", "item_id", "id")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
BLOCK = 1024
"""lines held at a time; bounds memory"""


class Row(NamedTuple):
    """One item."""

    asin: str
    text: str
    """what encoders read; may be empty"""
    image: Path | None
    """file of the image, inside the folder of images"""
    status: str
    """ok, missing or blocked, see schemas.IMAGE_STATUSES"""
    reason: str
    """why there is no image; empty for ok"""


def blocks(path: Path, images: Path | None) -> Iterator[tuple[list[Row], list[Reject]]]:
    """Return the items of each BLOCK lines of JSON lines or CSV, and the lines that cannot be used, in order.

    UserError if file or folder is absent; while reading, if a row names an image and there is no folder.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of items; give JSON lines or CSV, an item a line")
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder of images")
    return _blocks(path, images)


def _blocks(path: Path, images: Path | None) -> Iterator[tuple[list[Row], list[Reject]]]:
    seen: set[bytes] = set()  # 16 bytes an item: an identifier may occur once
    lines = enumerate(json_lines(path), start=1)
    while block := list(islice(lines, BLOCK)):
        rows, rejects = [], []
        for number, raw in block:
            if raw.strip():
                try:
                    rows.append(_row(raw, images, seen))
                except ValueError as e:
                    rejects.append(Reject(Line(number, raw[:KEPT]), str(e)))
        yield rows, rejects


def _row(raw: bytes, images: Path | None, seen: set[bytes]) -> Row:
    """Read one line; ValueError says why it cannot be used."""
    if len(raw) > LONGEST_LINE:
        raise ValueError("line too long")
    record = json_object(raw)
    asin = _identifier(record)
    digest = hashlib.blake2b(asin.encode(errors="replace"), digest_size=16).digest()
    if digest in seen:
        raise ValueError(f"{asin!r} occurred before")
    seen.add(digest)
    return Row(asin, _text(record), *_image(asin, as_text(record.get("image")), images))


def _identifier(record: dict[str, Any]) -> str:
    for key in IDENTIFIERS:
        value = record.get(key)
        if isinstance(value, (str, int)) and (name := named(value)):
            return name
    raise ValueError(f"no identifier: one of {', '.join(IDENTIFIERS)}")


def _text(record: dict[str, Any]) -> str:
    if isinstance(record.get("text"), str):
        return str(record["text"])
    categories = record.get("categories")
    return compose(
        cleaned(
            Product(
                title=as_text(record.get("title")),
                brand=as_text(record.get("brand")),
                categories=categories.split("|") if isinstance(categories, str) else as_list(categories),
                description=as_text(record.get("description")),
                image_urls=[],
                extra={},
            )
        )
    )


def _image(asin: str, name: str, images: Path | None) -> tuple[Path | None, str, str]:
    """Return file, status and reason of an item's image; a path out of the folder is blocked."""
    if images is None:
        if name:
            raise UserError(f"item {asin!r} names the image {name!r}; pass the folder that holds it with --images")
        return None, "missing", "no folder of images"
    inside = images.resolve()
    for candidate in [name] if name else [f"{asin}{ending}" for ending in ENDINGS]:
        if "\0" in candidate:
            return None, "blocked", "its image lies outside the folder"
        try:
            path = (inside / candidate).resolve()
            there = path.is_file()
        except (OSError, RuntimeError) as e:  # names that are too long, links in a circle
            return None, "missing", f"no such file among the images: {one_line(e, 100)}"
        if not path.is_relative_to(inside):
            return None, "blocked", "its image lies outside the folder"
        if there:
            return path, "ok", ""
    return None, "missing", one_line(f"no file {name or asin + '.*'} among the images", 200)
