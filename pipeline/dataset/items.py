"""Build the item table: one row per item with clean fields, composed text and image addresses."""

import itertools
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.dataset.products import MAX_ADDRESSES, Parsed, parse_lines
from alignrec.pipeline.io import PART
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import RejectedRow, refuse_many, reject_table
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.amazon import AmazonSource
from alignrec.pipeline.sources.base import Product, end_sentence, is_web
from alignrec.pipeline.vectors.identifiers import plain_name
from alignrec.schemas import TEXT_FIELDS

PRODUCT_FIELDS = ("title", "brand", "categories", "description", "image_urls")
NO_PRODUCT = Product("", "", [], "", [], {})
MAX_ABSENT_SHARE = 0.5  # share of items without metadata above which the stage warns
MIN_READ_SHARE = 0.9  # share of text read by encoders below which the stage warns
MAX_EXTRAS_INSPECTED = 1000  # items whose extra fields are inspected
MAX_NAMES_SHOWN = 5  # in a message


class Products:
    """Products of items, as JSON lines in a temporary file, read in parts of `part` items."""

    def __init__(self, items: int, folder: Path | None, part: int = PART) -> None:
        self.part = part
        self._seen = np.zeros(items, bool)
        # part -> byte offsets
        self._starts: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        # unlinked, so a kill leaves nothing behind
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def add(self, item: int, product: Product) -> bool:
        """Store a product and return whether the item already had one."""
        self._starts[item // self.part].append(self._file.tell())
        self._file.write(orjson.dumps([item, *product], option=orjson.OPT_APPEND_NEWLINE))
        is_repeated = bool(self._seen[item])
        self._seen[item] = True
        return is_repeated

    def read_part(self, number: int) -> dict[int, Product]:
        """Return item -> product of a part of the items."""
        products: dict[int, Product] = {}
        for start in self._starts[number]:
            self._file.seek(start)
            item, *fields = orjson.loads(self._file.readline())
            product = Product(*fields)
            if item in products:
                product = merge_products(products[item], product)
            products[item] = product
        return products


class Metadata(NamedTuple):
    """Products of a metadata file, and counts of its lines."""

    products: Products
    rejects: pa.Table  # REJECTS
    lines: int  # lines read
    drops: dict[str, int]  # reason -> lines, and lines with a field that is left out


def compose_text(product: Product, fields: Sequence[str] = TEXT_FIELDS) -> str:
    """Join the non-empty fields, each as a sentence."""
    sentences = []
    for name in fields:
        text = _category_path(product) if name == "categories" else getattr(product, name)
        if text:
            sentences.append(end_sentence(text))
    return " ".join(sentences)


def _category_path(product: Product) -> str:
    """Return the categories from the root, without repetitions in a row."""
    distinct = [category for category, _ in itertools.groupby(product.categories)]
    return " > ".join(distinct)


def read_metadata(
    lines: Iterable[bytes],
    source: Source,
    asins: Sequence[str],
    file: str,
    max_reject_share: float,
    workers: int | None = None,
    folder: Path | None = None,
) -> Metadata:
    """Read the metadata of items 0 .. I-1.

    Raises UserError above `max_reject_share` of unreadable lines.
    """
    item_of = source.reader().wanted(asins)
    products = Products(len(asins), folder)
    drops = Counter[str]()
    rejects = list[RejectedRow]()
    total = 0
    for outcome in parse_lines(lines, source, item_of, workers):
        total += 1
        if isinstance(outcome, RejectedRow):
            rejects.append(outcome)
        elif isinstance(outcome, Parsed):
            drops["merged_duplicate"] += products.add(item_of[outcome.name], outcome.product)
            drops.update(f"object_in_{role}" for role in outcome.left_out)
        else:
            drops[outcome] += 1

    drops["unreadable_line"] = len(rejects)
    refuse_many(file, "lines", rejects, total, max_reject_share, "items.max_reject_share")
    return Metadata(products, reject_table(file, rejects), total, dict(drops))


def item_tables(
    products: Products, asins: Sequence[str], fields: Sequence[str] = TEXT_FIELDS
) -> Iterator[pa.Table]:
    """Yield the rows of schema ITEMS, a part of the products at a time."""
    part = products.part
    for start in range(0, len(asins), part):
        ids = range(start, min(start + part, len(asins)))
        product_of = products.read_part(start // part)
        rows = [product_of.get(item, NO_PRODUCT) for item in ids]
        texts = [compose_text(product, fields) for product in rows]

        columns: dict[str, Sequence[Any]] = {}
        for name in PRODUCT_FIELDS:
            columns[name] = [getattr(product, name) for product in rows]
        columns |= {
            "item_id": ids,
            "asin": asins[start : start + part],
            "text": texts,
            "text_status": list(map(_text_status, texts, (item in product_of for item in ids))),
            "tokens": list(map(_count_words, texts)),
            "extra": list(map(_join_extra, rows)),
        }
        yield pa.Table.from_pydict(columns, schema=schemas.ITEMS)


def _text_status(text: str, has_metadata: bool) -> str:
    if text:
        return "ok"
    return "empty" if has_metadata else "no_metadata"


def _count_words(text: str) -> int:
    return text.count(" ") + bool(text)


def _join_extra(product: Product) -> str:
    fields = {name: orjson.Fragment(value) for name, value in product.extra.items()}
    return orjson.dumps(fields).decode()


def find_shared(path: Path, above: float) -> list[dict[str, object]]:
    """Return likely placeholders, most frequent first: titles and texts of more than a share
    `above` of the items.
    """
    from alignrec.pipeline.io.sql import open_database, parquet_sql  # loads DuckDB

    shared: list[dict[str, object]] = []
    with open_database() as db:
        items = db.sql(f"FROM {parquet_sql(path, schemas.ITEMS.names)}")
        most = max(1, above * len(items))
        for column in ("title", "text"):
            # hashes fit in memory
            hashes = f"SELECT hash({column}) FROM items GROUP BY 1 HAVING count(*) > {most}"
            values = db.sql(
                f"""SELECT {column}, count(*) AS n FROM items
                WHERE {column} <> '' AND hash({column}) IN ({hashes})
                GROUP BY 1 HAVING n > {most} ORDER BY n DESC, {column}"""
            )
            for value, n in values.fetchall():
                shared.append({"column": column, "value": value, "items": n})
    return shared


def measure_texts(
    parts: Iterable[pa.Table], fields: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the share of characters that encoders read, and the share of each omitted column."""
    lengths: Counter[str] = Counter(dict.fromkeys(TEXT_FIELDS, 0))
    for items in parts:
        for name in TEXT_FIELDS:
            values = items[name].to_pylist()
            lengths[name] += sum(map(_count_characters, values))
        for extra in items["extra"].to_pylist():
            for name, value in orjson.loads(extra).items():
                lengths[name] += _count_prose(value)

    total = lengths.total()
    if not total:
        return 1.0, {}
    omitted = {}
    for name, length in lengths.most_common():
        if length and name not in fields:
            omitted[name] = round(length / total, 6)
    return round(1 - sum(omitted.values()), 6), omitted


def _count_characters(value: str | list[str]) -> int:
    return len(value) if isinstance(value, str) else sum(map(len, value))


def _count_prose(value: Any) -> int:
    """Return the characters of an extra field's texts.

    Single words are labels, and addresses no text.
    """
    length = 0
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and len(text.split()) > 1 and not is_web(text):
            length += len(text)
    return length


def merge_products(first: Product, other: Product) -> Product:
    """Merge another line of the same item: the first non-empty value of each field wins, addresses
    are joined.
    """
    # `first.extra` is updated in place: copying would be quadratic in the number of lines
    for name, value in other.extra.items():
        first.extra.setdefault(name, value)
    urls = list(dict.fromkeys(first.image_urls + other.image_urls))[:MAX_ADDRESSES]
    merged = Product._make(a or b for a, b in zip(first, other, strict=True))
    return merged._replace(image_urls=urls, extra=first.extra)


def describe_items(run: Run, metadata: Metadata, file: Path | None) -> None:
    """Record counts and shares of the item table, and warn about what looks wrong."""
    layout = run.layout
    run.rows_in = metadata.lines
    run.rows_out = io.rows([layout.items])
    for reason, n in metadata.drops.items():
        run.count(reason, n)
    for part in io.read_slices(layout.items, schemas.ITEMS, ["text_status"], PART):
        for status in part["text_status"].to_pylist():
            run.count(f"text_{status}", status != "ok")

    shared = find_shared(layout.items, Items.shared_above)
    parts = io.read_tables(layout.items, schemas.ITEMS)
    share, omitted = measure_texts(parts, run.params[Items].text)
    run.note(shared=shared, text_used=share, text_left_out=omitted)
    if omitted and share < MIN_READ_SHARE:
        _warn_omitted(run, share, omitted)
    if shared:
        _warn_shared(run, shared)
    if file:
        _check_losses(run, file)


def _warn_omitted(run: Run, share: float, omitted: Mapping[str, float]) -> None:
    shares = [f"{name} {part:.0%}" for name, part in omitted.items()]
    listed = ", ".join(shares[:MAX_NAMES_SHOWN])
    remedy = ""
    if run.source.kind == "tabular":
        remedy = f"; sources.{run.dataset}.text joins columns to the text"
    run.warn(
        f"encoders read {share:.0%} of the characters of items' text; left out: {listed}{remedy}"
    )


def _warn_shared(run: Run, shared: Sequence[Mapping[str, object]]) -> None:
    first = shared[0]
    value = str(first["value"])[:60]
    listed = "it" if len(shared) == 1 else f"all {len(shared)} such values"
    record = run.layout.run_record("items")
    run.warn(
        f"{first['items']:,} of {run.rows_out:,} items have the {first['column']} {value!r}; "
        f"it may be a placeholder; {record} lists {listed}"
    )


class _Inventory(NamedTuple):
    """What the item table has."""

    statuses: Counter[str]  # text_status -> items
    fields: set[str]  # those of PRODUCT_FIELDS that any item has
    extra: list[str]  # other fields of the metadata, most frequent first

    @property
    def items(self) -> int:
        return self.statuses.total()

    @property
    def absent(self) -> int:
        return self.statuses["no_metadata"]


def _take_inventory(path: Path) -> _Inventory:
    statuses = Counter[str]()
    fields = set[str]()
    extras = list[str]()
    columns = [*PRODUCT_FIELDS, "text_status", "extra"]
    for part in io.read_slices(path, schemas.ITEMS, columns, PART):
        statuses.update(part["text_status"].to_pylist())
        for field in PRODUCT_FIELDS:
            if field not in fields and any(part[field].to_pylist()):
                fields.add(field)
        extras += part["extra"].slice(0, MAX_EXTRAS_INSPECTED - len(extras)).to_pylist()

    keys = Counter[str]()
    for extra in extras:
        keys.update(orjson.loads(extra).keys())
    return _Inventory(statuses, fields, [key for key, _ in keys.most_common()])


def _check_losses(run: Run, file: Path) -> None:
    """Warn about fields that most items lack.

    Raises UserError if the file does not fit the interactions.
    """
    inventory = _take_inventory(run.layout.items)
    if not run.rows_in:
        raise UserError(
            f"{file}: no item in it; give another file, or leave the key out of the source"
        )
    if inventory.absent == inventory.items:
        raise UserError(
            f"{file}: none of its {run.rows_in:,} lines is of one of the {inventory.items:,} "
            "items; are reviews and metadata swapped, or is the identifier in another column?"
        )

    _check_unmapped(run, file, inventory)
    _check_content(run, file, inventory)
    max_absent = 0 if run.source.has_split else MAX_ABSENT_SHARE * inventory.items
    if inventory.absent > max_absent:
        run.warn(
            f"{inventory.absent:,} of {inventory.items:,} items are not in {file.name}, and have "
            "neither text nor image of their own; their text_status in items.parquet is no_metadata"
        )


def _check_unmapped(run: Run, file: Path, inventory: _Inventory) -> None:
    """Find fields that no item has, but that the file has under another name."""
    from alignrec.pipeline.sources.inspect import KNOWN, TRANSLATED  # loads DuckDB

    lacking = [field for field in PRODUCT_FIELDS if field not in inventory.fields]
    for field, key in itertools.product(lacking, inventory.extra):
        if plain_name(key) not in (*KNOWN[field], *TRANSLATED[field]):
            continue
        if isinstance(run.source, AmazonSource):
            raise UserError(
                f"{file}: no item has {field}, but lines have '{key}', as in another version; "
                f"is sources.{run.dataset}.kind: {run.source.kind} right?"
            )
        run.warn(
            f"no item has {field}, but the file has '{key}'; "
            f"name it under `columns`: {{{field}: {key}}}"
        )


def _check_content(run: Run, file: Path, inventory: _Inventory) -> None:
    """Warn if no item has a text; raise UserError if none has an image either."""
    if inventory.statuses["empty"] != inventory.items - inventory.absent:
        return
    keys = ", ".join(inventory.extra[:8]) or "no other field"
    cause = f"its lines have {keys}; are reviews and metadata swapped?"
    if "image_urls" not in inventory.fields:
        raise UserError(f"{file}: no item has a text or an image; {cause}")
    run.warn(f"no item has a text; {cause}")
