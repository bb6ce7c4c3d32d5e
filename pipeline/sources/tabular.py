"""Any dataset as two files: interactions and optionally items, as Parquet, CSV or JSON lines.

The parameters map columns; by default columns have the names that they have here.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow.parquet as pq

from pipeline.config.base import Mirrors
from pipeline.errors import UserError
from pipeline.sources.base import Downloaded, Reader
from pipeline.sources.gz import unpacked
from pipeline.sources.product import Product, as_list, as_text, json_lines, json_object, others
from pipeline.sources.sql import name as identifier
from pipeline.sources.sql import quoted, read_csv, read_lines, stripped

KEPT = ("item", "title", "brand", "categories", "description", "image_urls")
SEPARATOR = "|"  # between categories, or addresses, that share a CSV cell


class TabularSource(Downloaded):
    """Two files of your own, as Parquet, CSV or JSON lines."""

    kind: Literal["tabular"]
    interactions: Mirrors
    """a row an interaction: user, item, and optionally rating and timestamp (seconds, or a date)"""
    items: Mirrors | None = None
    """a row an item: item, and any of title, brand, categories, description, image_urls; | parts several in one cell"""
    columns: dict[
        Literal["user", "item", "rating", "timestamp", "title", "brand", "categories", "description", "image_urls"], str
    ] = {}
    """name of a column here -> its name in the files, where they differ"""

    def reader(self) -> Reader:
        """Return a reader that knows the columns."""
        return Tabular(self)

    def files(self) -> dict[str, list[str]]:
        """Return role -> addresses: interactions, metadata."""
        return {"interactions": self.interactions} | ({"metadata": self.items} if self.items else {})


class Tabular:
    """Reads the files of one source; see base.Reader."""

    def __init__(self, source: TabularSource) -> None:
        self._columns: dict[str, str] = dict(source.columns.items())

    def _column(self, name: str) -> str:
        return self._columns.get(name, name)

    def ratings(self, raw: Mapping[str, Path]) -> str:
        """Return SQL that selects user, item, rating, timestamp, in the file's order.

        Times may be seconds or anything that reads as a date. A rating or time that the file has no column for is null.

        Raises:
            UserError: there is no column for users or items.
        """
        path = raw["interactions"]
        columns = column_names(path)
        for role in ("user", "item"):
            if self._column(role) not in columns:
                raise UserError(
                    f"{path}: no column '{self._column(role)}'; it has {', '.join(columns)}; say under "
                    f"`columns` of the source which one is the {role}"
                )
        text = {
            c: stripped(f"{identifier(self._column(c))}::VARCHAR") if self._column(c) in columns else "NULL"
            for c in ("user", "item", "rating", "timestamp")
        }
        return (
            f"SELECT {text['user']} AS user, {text['item']} AS item, "
            f"try_cast({text['rating']} AS FLOAT) AS rating, coalesce(try_cast({text['timestamp']} AS BIGINT), "
            f"epoch(try_cast({text['timestamp']} AS TIMESTAMPTZ))::BIGINT) AS timestamp FROM {_table(path, columns)}"
        )

    def metadata(self, raw: Mapping[str, Path]) -> Path | None:
        """Return the item file, if there is one."""
        return raw.get("metadata")

    def lines(self, path: Path) -> Iterator[bytes]:
        """Yield each item as one line of JSON."""
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches(4096):
                yield from (orjson.dumps(row, default=str) for row in batch.to_pylist())
            return
        yield from json_lines(path)

    def wanted(self, asins: list[str]) -> dict[str, int]:
        """Return the item file's identifier -> item_id."""
        return {asin: i for i, asin in enumerate(asins)}

    def key(self, line: bytes) -> str | None:
        """Return None: nothing is known of a line before it is parsed."""
        return None

    def parse(self, line: bytes) -> dict[str, Any]:
        """Read one item; ValueError, with a short message, if it is no JSON object."""
        return json_object(line)

    def name(self, record: dict[str, Any]) -> str | None:
        """Return the item's value."""
        value = record.get(self._column("item"))
        return None if value is None or isinstance(value, (bool, list, dict)) else str(value).strip() or None

    def product(self, record: dict[str, Any]) -> Product:
        """Return the fields of the item."""
        return Product(
            title=as_text(record.get(self._column("title"))),
            brand=as_text(record.get(self._column("brand"))),
            categories=_several(record.get(self._column("categories"))),
            description=as_text(record.get(self._column("description"))),
            image_urls=_several(record.get(self._column("image_urls"))),
            extra=others(record, [self._column(c) for c in KEPT]),
        )


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns, from its schema, its header or its first line.

    Raises:
        UserError: the file's ending is of no known format, or the file is empty.
    """
    if path.suffix == ".parquet":
        return pq.read_schema(path).names
    with unpacked(path) as f:
        first = f.readline().decode("utf-8")
    if ".csv" in path.suffixes:
        return next(csv.reader([first]), [])
    try:
        return list(orjson.loads(first))
    except orjson.JSONDecodeError:
        raise UserError(f"{path}: neither .parquet nor .csv, and its first line is not JSON") from None


def _table(path: Path, columns: list[str]) -> str:
    if path.suffix == ".parquet":
        return f"read_parquet({quoted(path)})"
    return read_csv(path, columns, True, quotes=True) if ".csv" in path.suffixes else read_lines(path, columns)


def _several(value: Any) -> list[str]:
    return [part.strip() for part in value.split(SEPARATOR)] if isinstance(value, str) else as_list(value)
