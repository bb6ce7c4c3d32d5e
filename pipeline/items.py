"""Metadata lines of the surviving items -> one row an item: clean fields, composed text, image addresses.

Text is composed as `title. brand. category > category. description`, empty parts left out. Several lines of one item
are merged field by field: the first line that has the field wins; image addresses are joined.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa

import schemas
from pipeline.errors import UserError
from pipeline.readers import Reader
from pipeline.sources.product import Product

LONGEST_LINE = 16 << 20  # bytes; real lines stay below 1 MiB

_HIDDEN = re.compile(r"<(script|style)\b[^>]*>.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")  # "a < b" is no tag
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\ufeff\ufffd\ufffe\uffff\ud800-\udfff\s]+"
)


class Line(NamedTuple):
    """One line of metadata and its number in the file, from 1."""

    number: int
    raw: bytes


class Items(NamedTuple):
    """What the stage writes, and what became of the lines."""

    items: pa.Table  # ITEMS
    rejects: pa.Table  # REJECTS
    lines: int  # lines read
    drops: dict[str, int]  # reason -> lines, or items that are incomplete


def clean(text: str) -> str:
    """Return text without markup, entities, control characters and repeated whitespace, in Unicode's NFC."""
    for _ in range(3):  # "&amp;lt;br&amp;gt;" is found in the wild: a tag under two layers of entities
        plain = _TAG.sub(" ", _HIDDEN.sub(" ", html.unescape(text)))
        if plain == text:
            break
        text = plain
    return unicodedata.normalize("NFC", _CONTROL.sub(" ", text)).strip()


def compose(product: Product) -> str:
    """Return what encoders read, from clean fields."""
    path = " > ".join(c for i, c in enumerate(product.categories) if not i or c != product.categories[i - 1])
    parts = (product.title, product.brand, path, product.description)
    return " ".join(part if part[-1] in ".!?" else f"{part}." for part in parts if part)


def build(lines: Iterable[bytes], reader: Reader, wanted: Mapping[str, int], asins: list[str], file: str,
          max_reject_share: float) -> Items:  # fmt: skip
    """Turn a metadata file into tables.

    Args:
        lines: of the file.
        reader: of this kind of line.
        wanted: the source's name of an item -> item_id; other items' lines are not even parsed.
        asins: identifier of items 0 .. I-1.
        file: the file's name, for rejects.
        max_reject_share: of unreadable lines.

    Returns:
        a row for every item, whether it has metadata or not, and every line that could not be read.

    Raises:
        UserError: more lines are unreadable than allowed; names the three commonest reasons.
    """
    drops: Counter[str] = Counter()
    found: dict[int, Product] = {}
    rejects: list[tuple[Line, str]] = []
    total = 0
    for total, raw in enumerate(lines, start=1):
        line = Line(total, raw)
        try:
            named = _read(line.raw, reader, wanted)
        except ValueError as e:
            rejects.append((line, str(e)))
            continue
        if isinstance(named, str):
            drops[named] += 1
            continue
        item, product = named
        if item in found:
            drops["merged_duplicate"] += 1
            product = merge(found[item], product)
        found[item] = product
    _refuse_many(rejects, total, file, max_reject_share)
    table = _items(found, asins)
    for status in ("empty", "no_metadata"):
        drops[f"text_{status}"] = sum(s == status for s in table["text_status"].to_pylist())
    drops["unreadable_line"] = len(rejects)
    return Items(table, _rejects(rejects, file), total, dict(drops))


def merge(first: Product, other: Product) -> Product:
    """Return one product of two lines: each field from the first that has it, all image addresses."""
    return Product(
        title=first.title or other.title,
        brand=first.brand or other.brand,
        categories=first.categories or other.categories,
        description=first.description or other.description,
        image_urls=list(dict.fromkeys(first.image_urls + other.image_urls)),
    )


def _read(raw: bytes, reader: Reader, wanted: Mapping[str, int]) -> tuple[int, Product] | str:
    """Return (item_id, clean product), or the reason why a readable line is not used; ValueError: unreadable."""
    if not raw.strip():
        return "blank_line"
    if len(raw) > LONGEST_LINE:
        raise ValueError("line too long")
    name = reader.key(raw)
    if name is not None and name not in wanted:
        return "other_item"
    record = reader.parse(raw)
    name = reader.name(record)
    if name is None:
        raise ValueError("no item identifier")
    if name not in wanted:
        return "other_item"
    return wanted[name], _cleaned(reader.product(record))


def _cleaned(product: Product) -> Product:
    return Product(
        title=clean(product.title),
        brand=clean(product.brand),
        categories=[c for c in map(clean, product.categories) if c],
        description=clean(product.description),
        image_urls=list(dict.fromkeys(_addresses(product.image_urls))),
    )


def _addresses(urls: list[str]) -> Iterator[str]:
    for url in urls:
        plain = _CONTROL.sub("", html.unescape(url))
        yield f"https:{plain}" if plain.startswith("//") else plain


def _refuse_many(rejects: list[tuple[Line, str]], total: int, file: str, share: float) -> None:
    if len(rejects) <= share * total:
        return
    reasons = ", ".join(f"{reason} ({n}x)" for reason, n in Counter(r for _, r in rejects).most_common(3))
    first = rejects[0][0].number
    raise UserError(
        f"{file}: {len(rejects):,} of {total:,} lines cannot be read, more than items.max_reject_share = {share:g} "
        f"allows: {reasons}; the first is line {first}"
    )


def _items(found: Mapping[int, Product], asins: list[str]) -> pa.Table:
    nothing = Product("", "", [], "", [])
    products = [found.get(i, nothing) for i in range(len(asins))]
    texts = [compose(p) for p in products]
    statuses = ["ok" if text else "empty" if i in found else "no_metadata" for i, text in enumerate(texts)]
    return pa.table(
        {
            "item_id": pa.array(range(len(asins)), pa.int32()),
            "asin": pa.array(asins, pa.string()),
            "title": pa.array([p.title for p in products], pa.string()),
            "brand": pa.array([p.brand for p in products], pa.string()),
            "categories": pa.array([p.categories for p in products], schemas.ITEMS.field("categories").type),
            "description": pa.array([p.description for p in products], pa.string()),
            "text": pa.array(texts, pa.string()),
            "text_status": pa.array(statuses, pa.string()),
            "image_urls": pa.array([p.image_urls for p in products], schemas.ITEMS.field("image_urls").type),
        }
    )


def _rejects(rejects: list[tuple[Line, str]], file: str) -> pa.Table:
    return pa.table(
        {
            "file": pa.array([file] * len(rejects), pa.string()),
            "line": pa.array([line.number for line, _ in rejects], pa.int64()),
            "reason": pa.array([reason for _, reason in rejects], pa.string()),
            "raw": pa.array([line.raw for line, _ in rejects], pa.binary()),
        }
    )
