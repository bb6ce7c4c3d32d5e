"""Products of the surviving items -> one row an item: clean fields, composed text, image addresses.

Text is composed as `title. brand. category > category. description`, empty parts left out; `items.text` may name
fewer fields. Several lines of one item
are merged field by field: the first line that has the field wins; image addresses are joined.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc

import schemas
from pipeline.config.parameters import Source
from pipeline.items.parse import MOST_ADDRESSES, Lines, Parsed, Reject, products
from pipeline.sources.lines import refuse_many, rejects
from pipeline.sources.product import Product, is_web
from schemas.items import TEXT_FIELDS


class Items(NamedTuple):
    """The tables that the stage writes, and counts of the lines."""

    items: pa.Table  # ITEMS
    rejects: pa.Table  # REJECTS
    lines: int  # lines read
    drops: dict[str, int]  # reason -> lines, or items that are incomplete


def compose(product: Product, fields: Sequence[str] = TEXT_FIELDS) -> str:
    """Return what encoders read, from clean fields in the order of `fields`, names of Product's."""
    path = " > ".join(c for i, c in enumerate(product.categories) if not i or c != product.categories[i - 1])
    texts = {"title": product.title, "brand": product.brand, "categories": path, "description": product.description}
    parts = [texts[name] for name in fields]
    return " ".join(part if part[-1] in ".!?" else f"{part}." for part in parts if part)


def build(lines: Iterable[bytes], source: Source, asins: list[str], file: str, max_reject_share: float,
          workers: int | None = None, fields: Sequence[str] = TEXT_FIELDS) -> Items:  # fmt: skip
    """Turn a metadata file into tables.

    Args:
        source: says which reader the lines need.
        asins: identifier of items 0 .. I-1.
        file: the file's name, for rejects.
        max_reject_share: of unreadable lines.
        workers: processes; None: as many as pay.
        fields: that make the text, see `compose`.

    Returns:
        a row for every item, whether it has metadata or not, and every line that could not be read.

    Raises:
        UserError: more lines are unreadable than allowed; names the three commonest reasons.
    """
    source_reader = source.reader()
    wanted = source_reader.wanted(asins)
    relevant = Lines(lines, source_reader, wanted)
    drops: Counter[str] = Counter()
    merged: dict[int, Product] = {}
    rejected: list[Reject] = []
    for outcome in products(relevant, source, wanted, workers):
        if isinstance(outcome, Reject):
            rejected.append(outcome)
        elif isinstance(outcome, Parsed):
            item = wanted[outcome.name]
            drops["merged_duplicate"] += item in merged
            merged[item] = merge(merged[item], outcome.product) if item in merged else outcome.product
        else:
            drops[outcome.reason] += 1
    drops.update(other_item=relevant.other, unreadable_line=len(rejected))
    unread = [(one.line.number, one.reason, one.line.raw) for one in rejected]
    refuse_many(file, "lines", [row[:2] for row in unread], relevant.total, max_reject_share, "items.max_reject_share")
    table = _items(merged, asins, fields)
    for status in ("empty", "no_metadata"):
        drops[f"text_{status}"] = table["text_status"].to_pylist().count(status)
    return Items(table, rejects(file, unread), relevant.total, dict(drops))


def shared(items: pa.Table, above: float) -> list[dict[str, object]]:
    """Return the titles and texts that may be placeholders: those of more than a share of the items, and of several.

    An object each has column (title or text), value and items (how many have it), most frequent first.
    """
    rows: list[dict[str, object]] = []
    for column in ("title", "text"):
        counts = items.filter(pc.field(column) != "").group_by(column).aggregate([(column, "count")])
        many = counts.filter(pc.field(f"{column}_count") > max(1, above * len(items)))
        many = many.sort_by([(f"{column}_count", "descending"), (column, "ascending")])
        values, numbers = many[column].to_pylist(), many[f"{column}_count"].to_pylist()
        rows += [{"column": column, "value": value, "items": n} for value, n in zip(values, numbers, strict=True)]
    return rows


def used(items: pa.Table, fields: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Return which share of the characters of text that items came with encoders get to read; and what is left out.

    The share is 1 where there is no text; of columns with words that are left out each has its own, most first.
    """
    lengths: Counter[str] = Counter()
    for name in TEXT_FIELDS:
        values = items[name].to_pylist()
        lengths[name] = sum(len(v) if isinstance(v, str) else sum(map(len, v)) for v in values)
    for extra in items["extra"].to_pylist():
        for name, value in orjson.loads(extra).items():
            lengths[name] += _words(value)
    total = lengths.total()
    if not total:
        return 1.0, {}
    out = {name: round(n / total, 6) for name, n in lengths.most_common() if n and name not in fields}
    return round(1 - sum(out.values()), 6), out


def _words(value: Any) -> int:
    """Return the characters of a field of the source that reads as text: words with blanks between them."""
    values = value if isinstance(value, list) else [value]
    texts = [v for v in values if isinstance(v, str) and len(v.split()) > 1 and not is_web(v)]
    return sum(map(len, texts))


def merge(first: Product, other: Product) -> Product:
    """Return one product of two lines: each field from the first that has it, all image addresses.

    The extra fields of `first` grow: a copy a line would take quadratic time for an item of many lines.
    """
    for name, value in other.extra.items():
        first.extra.setdefault(name, value)
    return Product(
        title=first.title or other.title,
        brand=first.brand or other.brand,
        categories=first.categories or other.categories,
        description=first.description or other.description,
        image_urls=list(dict.fromkeys(first.image_urls + other.image_urls))[:MOST_ADDRESSES],
        extra=first.extra,
    )


def _items(products: Mapping[int, Product], asins: list[str], fields: Sequence[str]) -> pa.Table:
    nothing = Product("", "", [], "", [], {})
    rows = [products.get(i, nothing) for i in range(len(asins))]
    texts = [compose(p, fields) for p in rows]
    statuses = ["ok" if text else "empty" if i in products else "no_metadata" for i, text in enumerate(texts)]
    return pa.table(
        {
            "item_id": pa.array(range(len(asins)), pa.int32()),
            "asin": pa.array(asins, pa.string()),
            "title": pa.array([p.title for p in rows], pa.string()),
            "brand": pa.array([p.brand for p in rows], pa.string()),
            "categories": pa.array([p.categories for p in rows], schemas.ITEMS.field("categories").type),
            "description": pa.array([p.description for p in rows], pa.string()),
            "text": pa.array(texts, pa.string()),
            "text_status": pa.array(statuses, pa.string()),
            "image_urls": pa.array([p.image_urls for p in rows], schemas.ITEMS.field("image_urls").type),
            "tokens": pa.array([text.count(" ") + bool(text) for text in texts], pa.int32()),
            "extra": pa.array([_object(p.extra) for p in rows], pa.string()),
        }
    )


def _object(fields: Mapping[str, str]) -> str:
    return orjson.dumps({name: orjson.Fragment(value) for name, value in fields.items()}).decode()
