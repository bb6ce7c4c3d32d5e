"""What every source's metadata is reduced to: raw text fields and image addresses of one product."""

from __future__ import annotations

from typing import Any, NamedTuple


class Product(NamedTuple):
    """Fields as the source has them, not yet cleaned; empty where it has none."""

    title: str
    brand: str
    categories: list[str]  # path from the root
    description: str
    image_urls: list[str]  # candidates, best first


def as_text(value: Any) -> str:
    """Return a string for a field that may be a string, a number, a list of paragraphs, or absent."""
    if isinstance(value, list):
        return " ".join(as_list(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def as_list(value: Any) -> list[str]:
    """Return the non-empty strings of a field that may be a list, a string, or absent."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str) and v.strip()]
