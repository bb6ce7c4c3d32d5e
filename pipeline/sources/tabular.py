"""Any dataset as two files: interactions and optionally items, as Parquet, CSV or JSON lines."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import model_validator

from pipeline.config.base import Mirrors, Share, known
from pipeline.errors import UserError, one_line
from pipeline.sources.base import Reader
from pipeline.sources.delimited import LOOKED_AT, Repaired, column_names, delimiter, repair
from pipeline.sources.feature_files import WithFeatures
from pipeline.sources.lines import json_object, unreadable
from pipeline.sources.product import Product, as_list, as_text, json_lines, others
from pipeline.sources.sql import connected, named, quoted, rating, read_csv, read_lines, stripped, trimmed
from pipeline.sources.sql import name as identifier

OF_INTERACTIONS = ("user", "item", "rating", "timestamp", "split")
OF_ITEMS = ("item", "title", "brand", "categories", "description", "image_urls")
FIRST_YEAR, LAST_YEAR = 1900, 2100  # of days written as eight digits
MILLISECONDS_FROM = 100_000_000_000  # as seconds the year 5138, as milliseconds 1973
PARQUET_ROWS = 4096
EXPECTED = {"rating": "numbers", "timestamp": "seconds, or dates such as 2024-12-31"}
SEPARATOR = "|"  # between categories, or addresses, that share a CSV cell

InteractionColumn = Literal["user", "item", "rating", "timestamp", "split"]
ItemColumn = Literal["item", "title", "brand", "categories", "description", "image_urls"]


class TabularSource(WithFeatures):
    """Two files of your own, as Parquet, CSV, TSV or JSON lines; the last three may be gzipped."""

    kind: Literal["tabular"]
    interactions: Mirrors
    """one interaction per row: user, item, and optionally rating, timestamp (seconds, milliseconds, or a date) and
    split (train, valid, test, or 0, 1, 2), which is then kept"""
    items: Mirrors | None = None
    """one item per row: item, and any of title, brand, categories, description, image_urls; | separates values"""
    columns: dict[InteractionColumn | ItemColumn, str] = {}
    """name of a column here -> its name in the files, where they differ"""
    item_columns: dict[ItemColumn, str] = {}
    """the same for only the item file, where the two files differ"""
    text: list[str] = []
    """more columns of the item file to append to the description"""
    flat_categories: bool = False
    """categories are a list without levels, which becomes one level, instead of a path from the root"""
    max_reject_share: Share = 0.01
    """largest share of unreadable rows of interactions in CSV; `items` has its own"""

    def reader(self) -> Reader:
        return Tabular(self)

    def files(self) -> dict[str, list[str]]:
        items = {"metadata": self.items} if self.items else {}
        return {"interactions": self.interactions} | items | self.feature_files()

    @model_validator(mode="after")
    def _by_identifier(self) -> Self:
        if name := self.without_order():
            raise ValueError(f"features.{name}: its rows name no items; give feature_rows, a mapping file: item, row")
        return self


class Tabular:
    """Reads the files of one source; see base.Reader."""

    def __init__(self, source: TabularSource) -> None:
        self._interaction_columns: dict[str, str] = dict(source.columns.items())
        self._most_rejects = source.max_reject_share
        self._text, self._flat = source.text, source.flat_categories
        self._item_columns: dict[str, str] = dict([*source.columns.items(), *source.item_columns.items()])

    def ratings(self, raw: Mapping[str, Path]) -> str:
        """Return SQL that selects user, item, rating, timestamp, in the file's order; and split, if the file has it.

        UserError: empty, or a column that is required or named under `columns` is missing or unreadable.
        """
        path, renamed = raw["interactions"], self._interaction_columns
        names = {role: renamed.get(role, role) for role in OF_INTERACTIONS}
        columns = _columns(path, names, required=("user", "item"), renamed=renamed)
        without_blanks = {"user": stripped, "item": stripped}
        text = {
            role: without_blanks.get(role, trimmed)(f"{identifier(name)}::VARCHAR") if name in columns else "NULL"
            for role, name in names.items()
        }
        rows = table(path, columns)
        times = seconds(text["timestamp"])
        for role, reads in (("rating", rating), ("timestamp", seconds)):
            if names[role] in columns:
                given = f"SELECT {text[role]} AS t, {reads(text[role])} AS v FROM {rows} LIMIT {LOOKED_AT}"
                texts, values, example = _first(path, f"SELECT count(t), count(v), any_value(t) FROM ({given})")
                if texts and not values:  # it would count as missing
                    what = f"holds {example[:80]!r}, which is no {role}; expected {EXPECTED[role]}"
                    raise UserError(f"{path}: column '{names[role]}' {what}")
        if names["timestamp"] in columns and _are_days(path, rows, text["timestamp"]):
            times = days(text["timestamp"])
        split = f", lower({text['split']}) AS split" if names["split"] in columns else ""
        return (
            f"SELECT {text['user']} AS user, {text['item']} AS item, {rating(text['rating'])} AS rating, "
            f"{times} AS timestamp{split} FROM {rows}"
        )

    def repair(self, raw: Mapping[str, Path], folder: Path) -> tuple[dict[str, Path], Repaired] | None:
        """Return the files with the interactions rewritten as Parquet; None if they are not CSV."""
        path = raw["interactions"]
        if path.suffix == ".parquet" or delimiter(path) is None:
            return None
        columns = column_names(path)
        wanted = [name for role in OF_INTERACTIONS if (name := self._interaction_columns.get(role, role)) in columns]
        to = folder / "repaired.parquet"
        return {**raw, "interactions": to}, repair(path, list(dict.fromkeys(wanted)), to, self._most_rejects)

    def metadata(self, raw: Mapping[str, Path]) -> Path | None:
        if path := raw.get("metadata"):
            names = {role: self._item_column(role) for role in OF_ITEMS}
            columns = _columns(path, names, required=("item",), renamed=self._item_columns)
            known(self._text, columns, "text")
        return path

    def lines(self, path: Path) -> Iterator[bytes]:
        yield from _parquet_lines(path) if path.suffix == ".parquet" else json_lines(path)

    def _item_column(self, role: str) -> str:
        return self._item_columns.get(role, role)

    def wanted(self, asins: list[str]) -> dict[str, int]:
        return {asin: i for i, asin in enumerate(asins)}

    def key(self, line: bytes) -> str | None:
        return None

    def parse(self, line: bytes) -> dict[str, Any]:
        return json_object(line)

    def name(self, record: dict[str, Any]) -> str | None:
        return named(record.get(self._item_column("item")))

    def product(self, record: dict[str, Any]) -> Product:
        of = {role: record.get(self._item_column(role)) for role in OF_ITEMS}
        categories = several(of["categories"])
        parts = [of["description"], *(record.get(column) for column in self._text)]
        return Product(
            title=as_text(of["title"]),
            brand=as_text(of["brand"]),
            categories=[", ".join(sorted(categories))] if self._flat and categories else categories,
            description=" ".join(text for text in map(_end_sentence, parts) if text)
            if self._text
            else as_text(parts[0]),
            image_urls=several(of["image_urls"]),
            extra=others(record, [*map(self._item_column, OF_ITEMS), *self._text]),
        )


def _parquet_lines(path: Path) -> Iterator[bytes]:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            rows = 0
            for batch in file.iter_batches(PARQUET_ROWS):
                yield from _rows_as_json(batch)
                rows += len(batch)
            if rows != file.metadata.num_rows:
                raise ValueError(f"{rows:,} of {file.metadata.num_rows:,} rows")
    except (pa.ArrowException, ValueError, OSError) as e:  # a UnicodeDecodeError too
        raise UserError(f"{path}: not a sound Parquet file: {one_line(e, 100)}") from None


def _rows_as_json(rows: pa.RecordBatch) -> list[bytes]:
    try:
        return [orjson.dumps(row, default=str) for row in rows.to_pylist()]
    except (ValueError, OverflowError, TypeError, pa.ArrowException) as e:  # such as a date that Python cannot have
        if len(rows) == 1:
            return [unreadable(f"not JSON: {e}")]
    return [line for i in range(len(rows)) for line in _rows_as_json(rows.slice(i, 1))]


def _columns(path: Path, names: Mapping[str, str], required: tuple[str, ...], renamed: Mapping[str, str]) -> list[str]:
    must = {role: names[role] for role in names if role in required or role in renamed}
    columns = column_names(path, must.values())
    for name in must.values():
        if columns.count(name) > 1:
            raise UserError(f"{path}: two columns are called '{name}'; rename one")
    for role, name in must.items():
        if name not in columns:
            have = ", ".join(columns)
            raise UserError(f"{path}: no column '{name}'; it has {have}; map the {role} under `columns` of the source")
    return columns


def seconds(text: str) -> str:
    """Return SQL that reads seconds, milliseconds, or a date or time (by default UTC) as Unix seconds, else null."""
    whole = f"try_cast({text} AS BIGINT)"
    unix = f"CASE WHEN {whole} > {MILLISECONDS_FROM} THEN {whole} // 1000 ELSE {whole} END"
    return f"coalesce({unix}, epoch(try_cast({text} AS TIMESTAMPTZ))::BIGINT)"


def days(text: str) -> str:
    return f"epoch(CASE WHEN {text} SIMILAR TO '[0-9]{{8}}' THEN try_strptime({text}, '%Y%m%d') END)::BIGINT"


def _are_days(path: Path, rows: str, text: str) -> bool:
    """Return whether the first times are days such as 20241231, which as seconds would lie in 1970."""
    known = f"year(to_timestamp({days('t')})) BETWEEN {FIRST_YEAR} AND {LAST_YEAR}"
    given = f"SELECT {text} AS t FROM {rows} LIMIT {LOOKED_AT}"
    times, read = _first(path, f"SELECT count(t), count(*) FILTER ({known}) FROM ({given})")
    return bool(times) and times == read


def _first(path: Path, query: str) -> tuple[Any, ...]:
    try:
        with connected() as db:
            return tuple(db.execute(query).fetchall()[0])
    except duckdb.Error as e:
        if path.suffix != ".parquet" and delimiter(path) is not None:  # see `Tabular.repair`
            raise
        raise UserError(f"{path}: not readable: {one_line(e)}") from None


def table(path: Path, columns: list[str]) -> str:
    if path.suffix == ".parquet":
        return f"read_parquet({quoted(path)})"
    separator = delimiter(path)
    return read_csv(path, columns, True, separator, quotes=True) if separator else read_lines(path, columns)


def _end_sentence(value: Any) -> str:
    text = ", ".join(as_list(value)) if isinstance(value, list) else as_text(value).strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def several(value: Any) -> list[str]:
    return [part.strip() for part in value.split(SEPARATOR)] if isinstance(value, str) else as_list(value)
