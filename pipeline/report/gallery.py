"""Images of items and of their nearest neighbours under each feature set."""

import base64
import io as bytes_io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

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


def _fitted(data: bytes) -> Image.Image | None:
    try:
        image = Image.open(bytes_io.BytesIO(data), formats=["JPEG"]).convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None
    image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (CELL, CELL), BACKGROUND)
    square.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return square
