"""Build the item table: one row per item with clean fields, composed text and image addresses."""

import itertools
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.params import Items
from alignrec.pipeline.dataset.products import MOST_ADDRESSES, Parsed, parse_lines
from alignrec.pipeline.io import PART
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import Reject, refuse_many, reject_table
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.amazon import AmazonSource
from alignrec.pipeline.sources.base import Product, is_web
from alignrec.pipeline.vectors.identifiers import plain_name
from alignrec.schemas import TEXT_FIELDS

LOOKED_FOR = ("title", "brand", "categories", "description", "image_urls")
MOST_ABSENT = 0.5  # share of items without metadata above which the stage warns
LEAST_READ = 0.9  # share of text read by encoders below which the stage warns
LOOKED_AT = 1000  # items whose extra fields are inspected


class Products:
    """Products of items, stored as JSON lines in a temporary file and read in parts of PART items."""

    def __init__(self, items: int, folder: Path | None) -> None:
        self._seen = np.zeros(items, bool)
        self._starts: defaultdict[int, array[int]] = defaultdict(
            lambda: array("q")
        )  # part -> byte offsets
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  unlinked, so a kill leaves nothing behind

    def add(self, item: int, product: Product) -> bool:
        """Store a product and return whether the item already had one."""
        self._starts[item // PART].append(self._file.tell())
        self._file.write(orjson.dumps([item, *product], option=orjson.OPT_APPEND_NEWLINE))
        again, self._seen[item] = bool(self._seen[item]), True
        return again

    def read_part(self, number: int) -> dict[int, Product]:
        merged: dict[int, Product] = {}
        for start in self._starts[number]:
            self._file.seek(start)
            item, *fields = orjson.loads(self._file.readline())
            merged[item] = (
                merge_products(merged[item], Product(*fields))
                if item in merged
                else Product(*fields)
            )
        return merged


class Metadata(NamedTuple):
    """Products of a metadata file, and counts of its lines."""

    products: Products
    rejects: pa.Table  # REJECTS
    lines: int  # lines read
    drops: dict[str, int]  # reason -> lines


def compose_text(product: Product, fields: Sequence[str] = TEXT_FIELDS) -> str:
    path = " > ".join(
        c for i, c in enumerate(product.categories) if not i or c != product.categories[i - 1]
    )
    parts = [path if name == "categories" else getattr(product, name) for name in fields]
    return " ".join(part if part[-1] in ".!?" else f"{part}." for part in parts if part)


def read_metadata(
    lines: Iterable[bytes], source: Source, asins: Sequence[str], file: str, max_reject_share: float,
    workers: int | None = None, folder: Path | None = None,
) -> Metadata:  # fmt: skip
    """Read the metadata of items 0 .. I-1; raise UserError above `max_reject_share` of unreadable lines."""
    wanted, drops = source.reader().wanted(asins), Counter[str]()
    found, unread, total = Products(len(asins), folder), list[Reject](), 0
    for outcome in parse_lines(lines, source, wanted, workers):
        total += 1
        if isinstance(outcome, Reject):
            unread.append(outcome)
        elif isinstance(outcome, Parsed):
            drops["merged_duplicate"] += found.add(wanted[outcome.name], outcome.product)
        else:
            drops[outcome] += 1
    drops["unreadable_line"] = len(unread)
    refuse_many(file, "lines", unread, total, max_reject_share, "items.max_reject_share")
    return Metadata(found, reject_table(file, unread), total, dict(drops))


def item_tables(
    found: Products, asins: Sequence[str], fields: Sequence[str] = TEXT_FIELDS
) -> Iterator[pa.Table]:
    for start in range(0, len(asins), PART):
        products, ids = found.read_part(start // PART), range(start, min(start + PART, len(asins)))
        rows = [products.get(i, Product("", "", [], "", [], {})) for i in ids]
        texts = [compose_text(p, fields) for p in rows]
        columns: dict[str, Sequence[Any]] = {
            name: [getattr(p, name) for p in rows] for name in LOOKED_FOR
        }
        statuses = [
            "ok" if t else "empty" if i in products else "no_metadata"
            for i, t in zip(ids, texts, strict=True)
        ]
        columns |= {
            "item_id": ids,
            "asin": asins[start : start + PART],
            "text": texts,
            "text_status": statuses,
            "tokens": [text.count(" ") + bool(text) for text in texts],
            "extra": [
                orjson.dumps({k: orjson.Fragment(v) for k, v in p.extra.items()}).decode()
                for p in rows
            ],
        }
        yield pa.Table.from_pydict(columns, schema=schemas.ITEMS)


def find_shared(path: Path, above: float) -> list[dict[str, object]]:
    """Return likely placeholders, most frequent first: titles and texts of more than a share `above` of the items."""
    from alignrec.pipeline.io.sql import open_database  # loads DuckDB

    rows: list[dict[str, object]] = []
    with open_database() as db:
        items = db.read_parquet(str(path))
        most = max(1, above * len(items))
        for column in ("title", "text"):
            often = f"SELECT hash({column}) FROM items GROUP BY 1 HAVING count(*) > {most}"  # hashes fit in memory
            many = db.sql(
                f"SELECT {column}, count(*) AS n FROM items WHERE {column} <> '' AND hash({column}) IN ({often}) "
                f"GROUP BY 1 HAVING n > {most} ORDER BY n DESC, {column}"
            )
            rows += [{"column": column, "value": value, "items": n} for value, n in many.fetchall()]
    return rows


def measure_texts(
    parts: Iterable[pa.Table], fields: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the share of characters that encoders read, and the share of each omitted column."""
    lengths: Counter[str] = Counter(dict.fromkeys(TEXT_FIELDS, 0))
    for items in parts:
        for name in TEXT_FIELDS:
            lengths[name] += sum(
                len(v) if isinstance(v, str) else sum(map(len, v)) for v in items[name].to_pylist()
            )
        for extra in map(orjson.loads, items["extra"].to_pylist()):
            for name, value in extra.items():  # single words are labels, not text
                texts = (
                    v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)
                )
                lengths[name] += sum(
                    len(text) for text in texts if len(text.split()) > 1 and not is_web(text)
                )
    total = lengths.total()
    if not total:
        return 1.0, {}
    out = {
        name: round(n / total, 6) for name, n in lengths.most_common() if n and name not in fields
    }
    return round(1 - sum(out.values()), 6), out


def merge_products(first: Product, other: Product) -> Product:
    """Merge another line of the same item: the first non-empty value of each field wins, addresses are joined."""
    # `first.extra` is updated in place: copying would be quadratic in the number of lines
    for name, value in other.extra.items():
        first.extra.setdefault(name, value)
    urls = list(dict.fromkeys(first.image_urls + other.image_urls))[:MOST_ADDRESSES]
    return Product._make(a or b for a, b in zip(first, other, strict=True))._replace(
        image_urls=urls, extra=first.extra
    )


def describe_items(run: Run, found: Metadata, file: Path | None) -> None:
    layout, fields = run.layout, run.params[Items].text
    run.rows_in, run.rows_out = found.lines, io.rows([layout.items])
    for reason, n in found.drops.items():
        run.count(reason, n)
    for part in io.read_slices(layout.items, schemas.ITEMS, ["text_status"], io.PART):
        for status in part["text_status"].to_pylist():
            run.count(f"text_{status}", status != "ok")
    shared = find_shared(layout.items, Items.shared_above)
    share, left_out = measure_texts(io.read_tables(layout.items, schemas.ITEMS), fields)
    run.note(shared=shared, text_used=share, text_left_out=left_out)
    if left_out and share < LEAST_READ:
        shares = ", ".join(f"{name} {part:.0%}" for name, part in list(left_out.items())[:5])
        how = (
            f"; sources.{run.dataset}.text joins columns to the text"
            if run.source.kind == "tabular"
            else ""
        )
        run.warn(
            f"encoders read {share:.0%} of the characters of items' text; left out: {shares}{how}"
        )
    for row in shared[:1]:
        listed = "it" if len(shared) == 1 else f"all {len(shared)} such values"
        said = f"{row['items']:,} of {run.rows_out:,} items have the {row['column']} {str(row['value'])[:60]!r}"
        run.warn(f"{said}; it may be a placeholder; {layout.run_record('items')} lists {listed}")
    if file:
        _check_losses(run, file)


def _check_losses(run: Run, file: Path) -> None:
    """Warn about fields that most items lack; raise UserError if the file does not fit the interactions."""
    from alignrec.pipeline.sources.inspect import KNOWN, TRANSLATED  # loads DuckDB

    n, statuses, there, extras = 0, Counter[str](), set[str](), list[str]()
    for part in io.read_slices(
        run.layout.items, schemas.ITEMS, [*LOOKED_FOR, "text_status", "extra"], io.PART
    ):
        n += len(part)
        statuses.update(part["text_status"].to_pylist())
        there |= {
            field for field in LOOKED_FOR if field not in there and any(part[field].to_pylist())
        }
        extras += part["extra"].slice(0, LOOKED_AT - len(extras)).to_pylist()
    absent = statuses["no_metadata"]
    if not run.rows_in:
        raise UserError(
            f"{file}: no item in it; give another file, or leave the key out of the source"
        )
    if absent == n:
        swapped = "are reviews and metadata swapped, or is the identifier in another column?"
        raise UserError(
            f"{file}: none of its {run.rows_in:,} lines is of one of the {n:,} items; {swapped}"
        )
    others = [
        key
        for key, _ in Counter(key for extra in extras for key in orjson.loads(extra)).most_common()
    ]
    lacking = [field for field in LOOKED_FOR if field not in there]
    for field, key in itertools.product(lacking, others):
        if plain_name(key) not in (*KNOWN[field], *TRANSLATED[field]):
            continue
        if isinstance(run.source, AmazonSource):
            right = f"is sources.{run.dataset}.kind: {run.source.kind} right?"
            raise UserError(
                f"{file}: no item has {field}, but lines have '{key}', as in another version; {right}"
            )
        run.warn(
            f"no item has {field}, but the file has '{key}'; name it under `columns`: {{{field}: {key}}}"
        )
    if statuses["empty"] == n - absent:
        cause = f"its lines have {', '.join(others[:8]) or 'no other field'}; are reviews and metadata swapped?"
        if "image_urls" not in there:
            raise UserError(f"{file}: no item has a text or an image; {cause}")
        run.warn(f"no item has a text; {cause}")
    if absent > (0 if run.source.has_split else MOST_ABSENT * n):
        lacking_all = "have neither text nor image of their own; their text_status in items.parquet is no_metadata"
        run.warn(f"{absent:,} of {n:,} items are not in {file.name}, and {lacking_all}")
