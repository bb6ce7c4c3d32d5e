"""Products of the surviving items -> one row per item: clean fields, composed text, image addresses.

Text is composed as `title. brand. category > category. description`, without empty parts; `items.text` may name fewer
fields. Lines of one item are merged field by field: the first line that has the field wins; image addresses are joined.
"""

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.config.parameters import Source
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.io import PART
from alignrec.pipeline.items.parse import MOST_ADDRESSES, Lines, Parsed, Reject, products
from alignrec.pipeline.sources.amazon import AmazonSource
from alignrec.pipeline.sources.base import raw_files
from alignrec.pipeline.sources.lines import refuse_many, rejects
from alignrec.pipeline.sources.product import Product, is_web
from alignrec.schemas.items import TEXT_FIELDS

LOOKED_FOR = ("title", "brand", "categories", "description", "image_urls")
MOST_ABSENT = 0.5  # share of items without metadata, without a warning
LEAST_READ = 0.9  # share of the text that encoders read, without a warning
LOOKED_AT = 1000  # items whose other fields are looked at
BUFFER = 64 << 20  # bytes of products that are held before they are put on disk


class Products:
    """The products of I items, in parts of PART items; those beyond BUFFER bytes are in a temporary file."""

    def __init__(self, items: int, folder: Path | None) -> None:
        self._seen = np.zeros(items, bool)
        self._lines: defaultdict[int, bytearray] = defaultdict(bytearray)  # of each part, a product a line
        self._held = 0
        self._places: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # of each part, start and size
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  a kill leaves nothing of it

    def add(self, item: int, product: Product) -> bool:
        line = orjson.dumps([item, *product], option=orjson.OPT_APPEND_NEWLINE)
        self._lines[item // PART] += line  # a copy: what orjson returns takes a page each
        self._held += len(line)
        if self._held > BUFFER:
            self._put_away()
        again, self._seen[item] = bool(self._seen[item]), True
        return again

    def part(self, number: int) -> dict[int, Product]:
        merged: dict[int, Product] = {}
        stored = (os.pread(self._file.fileno(), size, start) for start, size in self._places[number])
        for line in (line for chunk in chain(stored, [bytes(self._lines[number])]) for line in chunk.splitlines()):
            item, *fields = orjson.loads(line)
            merged[item] = merge(merged[item], Product(*fields)) if item in merged else Product(*fields)
        return merged

    def _put_away(self) -> None:
        start = self._file.seek(0, 2)
        for number, lines in self._lines.items():
            self._file.write(lines)
            self._places[number].append((start, len(lines)))
            start += len(lines)
        self._file.flush()
        self._lines.clear()
        self._held = 0


class Read(NamedTuple):
    """What was read of a metadata file, and counts of its lines."""

    products: Products
    rejects: pa.Table  # REJECTS
    lines: int  # that were read
    drops: dict[str, int]  # reason -> lines


def compose(product: Product, fields: Sequence[str] = TEXT_FIELDS) -> str:
    path = " > ".join(c for i, c in enumerate(product.categories) if not i or c != product.categories[i - 1])
    texts = {"title": product.title, "brand": product.brand, "categories": path, "description": product.description}
    parts = [texts[name] for name in fields]
    return " ".join(part if part[-1] in ".!?" else f"{part}." for part in parts if part)


def read(lines: Iterable[bytes], source: Source, asins: Sequence[str], file: str, max_reject_share: float,
         workers: int | None = None, folder: Path | None = None) -> Read:  # fmt: skip
    """Read a metadata file of items 0 .. I-1; UserError if more lines are unreadable than allowed.

    Products that do not fit into memory go to `folder`, by default the system's for temporary files.
    """
    source_reader = source.reader()
    wanted = source_reader.wanted(asins)
    relevant = Lines(lines, source_reader, wanted)
    drops: Counter[str] = Counter()
    found = Products(len(asins), folder)
    rejected: list[Reject] = []
    for outcome in products(relevant, source, wanted, workers):
        if isinstance(outcome, Reject):
            rejected.append(outcome)
        elif isinstance(outcome, Parsed):
            drops["merged_duplicate"] += found.add(wanted[outcome.name], outcome.product)
        else:
            drops[outcome] += 1
    drops.update(other_item=relevant.other, unreadable_line=len(rejected))
    unread = [(one.line.number, one.reason, one.line.raw) for one in rejected]
    refuse_many(file, "lines", [row[:2] for row in unread], relevant.total, max_reject_share, "items.max_reject_share")
    return Read(found, rejects(file, unread), relevant.total, dict(drops))


def tables(found: Products, asins: Sequence[str], fields: Sequence[str] = TEXT_FIELDS) -> Iterator[pa.Table]:
    for start in range(0, len(asins), PART):
        products, ids = found.part(start // PART), range(start, min(start + PART, len(asins)))
        rows = [products.get(i, Product("", "", [], "", [], {})) for i in ids]
        texts = [compose(p, fields) for p in rows]
        names = ("title", "brand", "categories", "description", "image_urls")
        columns: dict[str, Sequence[Any]] = {name: [getattr(p, name) for p in rows] for name in names}
        columns |= {
            "item_id": ids,
            "asin": asins[start : start + PART],
            "text": texts,
            "text_status": [
                "ok" if t else "empty" if i in products else "no_metadata" for i, t in zip(ids, texts, strict=True)
            ],
            "tokens": [text.count(" ") + bool(text) for text in texts],
            "extra": [orjson.dumps({k: orjson.Fragment(v) for k, v in p.extra.items()}).decode() for p in rows],
        }
        yield pa.Table.from_pydict(columns, schema=schemas.ITEMS)


def find_shared(path: Path, above: float) -> list[dict[str, object]]:
    """Return the titles and texts of a file of ITEMS that may be placeholders, most frequent first.

    Each belongs to several items, and more than a share of them: column (title or text), value, and number of items.
    """
    from alignrec.pipeline.sources.sql import connected  # loads DuckDB

    rows: list[dict[str, object]] = []
    with connected() as db:
        items = db.read_parquet(str(path))
        most = max(1, above * len(items))
        for column in ("title", "text"):
            often = f"SELECT hash({column}) FROM items GROUP BY 1 HAVING count(*) > {most}"  # hashes fit into memory
            many = db.sql(
                f"SELECT {column}, count(*) AS n FROM items WHERE {column} <> '' AND hash({column}) IN ({often}) "
                f"GROUP BY 1 HAVING n > {most} ORDER BY n DESC, {column}"
            )
            rows += [{"column": column, "value": value, "items": n} for value, n in many.fetchall()]
    return rows


def share_read(parts: Iterable[pa.Table], fields: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Return the share of the characters of items' texts that encoders read, and that of each column left out."""
    lengths: Counter[str] = Counter(dict.fromkeys(TEXT_FIELDS, 0))
    for items in parts:
        for name in TEXT_FIELDS:
            lengths[name] += sum(len(v) if isinstance(v, str) else sum(map(len, v)) for v in items[name].to_pylist())
        for extra in items["extra"].to_pylist():
            for name, value in orjson.loads(extra).items():
                values = value if isinstance(value, list) else [value]
                lengths[name] += sum(
                    len(v) for v in values if isinstance(v, str) and len(v.split()) > 1 and not is_web(v)
                )
    total = lengths.total()
    if not total:
        return 1.0, {}
    out = {name: round(n / total, 6) for name, n in lengths.most_common() if n and name not in fields}
    return round(1 - sum(out.values()), 6), out


def merge(first: Product, other: Product) -> Product:
    """Merge the product of another line into `first`, whose extra fields grow, as copies would take quadratic time."""
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


def check_losses(run: Run) -> None:
    file = run.source.reader().metadata(raw_files(run.layout.sources))
    if file is None:
        return
    n, statuses, there, extras = 0, Counter[str](), set[str](), list[str]()
    for part in io.read_slices(run.layout.items, schemas.ITEMS, [*LOOKED_FOR, "text_status", "extra"], io.PART):
        n += len(part)
        statuses.update(part["text_status"].to_pylist())
        there |= {field for field in LOOKED_FOR if field not in there and any(part[field].to_pylist())}
        extras += part["extra"].slice(0, LOOKED_AT - len(extras)).to_pylist()
    absent = statuses["no_metadata"]
    if not run.rows_in:
        raise UserError(f"{file}: no item in it; give another file, or leave the key out of the source")
    if absent == n:
        raise UserError(
            f"{file}: none of its {run.rows_in:,} lines is of one of the {n:,} items; are reviews and metadata "
            "swapped, or is the identifier in another column?"
        )
    others = [key for key, _ in Counter(key for extra in extras for key in orjson.loads(extra)).most_common()]
    _check_fields(run, file, [field for field in LOOKED_FOR if field not in there], others)
    if statuses["empty"] == n - absent:
        cause = f"its lines have {', '.join(others[:8]) or 'no other field'}; are reviews and metadata swapped?"
        if "image_urls" not in there:
            raise UserError(f"{file}: no item has a text or an image; {cause}")
        run.warn(f"no item has a text; {cause}")
    if absent > (0 if run.source.has_split else MOST_ABSENT * n):
        run.warn(
            f"{absent:,} of {n:,} items are not in {file.name}, and have neither text nor image of their own; their "
            "text_status in items.parquet is no_metadata"
        )


def _check_fields(run: Run, file: Path, gone: Sequence[str], others: Sequence[str]) -> None:
    from alignrec.pipeline.sources.inspect import KNOWN, plain  # loads DuckDB

    for field, key in {field: key for field in gone for key in others if plain(key) in KNOWN[field]}.items():
        if isinstance(run.source, AmazonSource):
            raise UserError(
                f"{file}: no item has {field}, but lines have '{key}', as another version of the data does; is "
                f"sources.{run.dataset}.kind: {run.source.kind} right?"
            )
        run.warn(f"no item has {field}, but the file has '{key}'; name it under `columns`: {{{field}: {key}}}")


def warn_of_texts(run: Run, share: float, left_out: Mapping[str, float], shared: Sequence[Mapping[str, Any]]) -> None:
    """Warn if encoders read little of the text, and of titles and texts that many items share."""
    if left_out and share < LEAST_READ:
        shares = ", ".join(f"{name} {part:.0%}" for name, part in list(left_out.items())[:5])
        how = f"; sources.{run.dataset}.text joins columns to the text" if run.source.kind == "tabular" else ""
        run.warn(f"encoders read {share:.0%} of the characters of items' text; left out: {shares}{how}")
    for row in shared[:1]:
        listed = "it" if len(shared) == 1 else f"all {len(shared)} such values"
        run.warn(
            f"{row['items']:,} of {run.rows_out:,} items have the {row['column']} {row['value'][:60]!r}; it may be a "
            f"placeholder; {run.layout.run_record('items')} lists {listed}"
        )
