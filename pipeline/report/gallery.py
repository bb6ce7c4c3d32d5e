"""Images of items and of their nearest neighbours under each feature set."""

import base64
import io as bytes_io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

CELL = 80
"""pixels of an image in a sheet"""
COLUMNS = 20
"""images per row, and rows: 1600 x 1600 pixels, which phones decode"""
BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class Sheets:
    """Thumbnails of many items, packed into a few JPEG sheets."""

    data: list[str]
    """base64 JPEG"""
    place: dict[int, int]
    """item_id -> cell, counted through all sheets"""

    def table(self, titles: Sequence[str], notes: Sequence[str]) -> dict[str, Any]:
        """Return titles, categories and cells (-1: no image) of all items, for a page."""
        return {"titles": titles, "notes": notes, "cells": [self.place.get(i, -1) for i in range(len(titles))]}


def thumbnails(tables: Iterable[pa.Table], wanted: set[int]) -> dict[int, Image.Image]:
    """Return item_id -> RGB image of CELL x CELL pixels, uncropped, on white; tables have item_id and image (JPEG)."""
    images = {}
    for table in tables:
        for item, data in zip(table["item_id"].to_pylist(), table["image"], strict=True):
            if item in wanted and data.is_valid and (image := _fitted(data.as_py())):
                images[item] = image
    return images


def sheets(images: Mapping[int, Image.Image]) -> Sheets:
    items = sorted(images)
    data = []
    for start in range(0, len(items), COLUMNS * COLUMNS):
        part = items[start : start + COLUMNS * COLUMNS]
        sheet = Image.new("RGB", (COLUMNS * CELL, -(-len(part) // COLUMNS) * CELL), BACKGROUND)
        for i, item in enumerate(part):
            sheet.paste(images[item], (i % COLUMNS * CELL, i // COLUMNS * CELL))
        out = bytes_io.BytesIO()
        sheet.save(out, "JPEG", quality=80, optimize=True)
        data.append(base64.b64encode(out.getvalue()).decode())
    return Sheets(data, {item: i for i, item in enumerate(items)})


def poster(items: Sequence[int], sets: Mapping[str, Mapping[int, list[int]]], images: Mapping[int, Image.Image],
           titles: Sequence[str]) -> bytes:  # fmt: skip
    """Return a PNG: a row per item, its four nearest under each feature set; titles replace missing images."""
    gap, top, side, count = 28, 46, CELL, 4
    width = side + len(sets) * (gap + count * (side + 4))
    canvas = Image.new("RGB", (width + 2 * gap, top + len(items) * (side + 14) + gap), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((gap, 16), "item", fill=(110, 110, 118), font=ImageFont.load_default(19))
    for s, (name, neighbours) in enumerate(sets.items()):
        left = gap + side + gap + s * (gap + count * (side + 4))
        draw.text((left, 16), name, fill=(110, 110, 118), font=ImageFont.load_default(19))
        for r, item in enumerate(items):
            for c, other in enumerate(neighbours.get(item, [])[:count]):
                _place(canvas, (left + c * (side + 4), top + r * (side + 14)), images.get(other), titles[other])
    for r, item in enumerate(items):
        at = (gap, top + r * (side + 14))
        _place(canvas, at, images.get(item), titles[item])
        draw.rectangle((at[0] - 3, at[1] - 3, at[0] + side + 2, at[1] + side + 2), outline=(90, 110, 200), width=2)
    out = bytes_io.BytesIO()
    canvas.save(out, "PNG", optimize=True)
    return out.getvalue()


def _place(canvas: Image.Image, at: tuple[int, int], image: Image.Image | None, title: str) -> None:
    if image is not None:
        canvas.paste(image, at)
        return
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    lines = "\n".join(_wrapped(title or "no text", 11)[:4])
    draw.rectangle((*at, at[0] + CELL - 1, at[1] + CELL - 1), fill=(243, 243, 245))
    draw.multiline_text((at[0] + 5, at[1] + 6), lines, fill=(90, 90, 98), font=font, spacing=3)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()[:width]
    return lines


def _fitted(data: bytes) -> Image.Image | None:
    try:
        image = Image.open(bytes_io.BytesIO(data), formats=["JPEG"]).convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (CELL, CELL), BACKGROUND)
    square.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return square
