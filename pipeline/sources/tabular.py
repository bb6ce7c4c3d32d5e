"""Datasets as one file of interactions and optionally one of items, in Parquet, CSV, TSV or JSON lines."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline.io import sql
from alignrec.pipeline.io.csv_rows import find_delimiter, repair_rows
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.json_rows import ROWS_INSPECTED, column_names
from alignrec.pipeline.runtime.section import Mirrors, Share, require_known
from alignrec.pipeline.sources.base import (
    Downloaded,
    Product,
    Reader,
    as_list,
    as_text,
    is_column,
    others,
)

InteractionColumn = Literal["user", "item", "rating", "timestamp", "split"]
ItemColumn = Literal["item", "title", "brand", "categories", "description", "image_urls"]
OF_INTERACTIONS, OF_ITEMS = get_args(InteractionColumn), get_args(ItemColumn)
FIRST_YEAR, LAST_YEAR = 1900, 2100  # plausible years of days such as 20241231
MILLISECONDS_FROM = 100_000_000_000  # the year 5138 as seconds, 1973 as milliseconds
EXPECTED = {"rating": "numbers", "timestamp": "seconds, or dates such as 2024-12-31"}
SEPARATOR = "|"  # between categories or addresses in one CSV cell


class TabularSource(Downloaded):
    """A user's own files in Parquet, CSV, TSV or JSON lines, text optionally gzipped."""

    kind: Literal["tabular"]
    # one interaction per row: user, item, and optionally rating, timestamp (seconds, milliseconds or a date) and split
    # (train, valid, test, or 0, 1, 2), which is kept
    interactions: Mirrors
    # one item per row: item, and any of title, brand, categories, description, image_urls; | separates values
    items: Mirrors | None = None
    # our column name -> name in the files, where they differ
    columns: dict[InteractionColumn | ItemColumn, str] = {}
    item_columns: dict[ItemColumn, str] = {}  # overrides `columns` for the item file
    text: list[str] = []  # columns of the item file to append to the description
    max_reject_share: Share = (
        0.01  # maximum share of unreadable CSV rows of interactions; see also `items`
    )

    @property
    def has_images(self) -> bool:
        renamed = self.columns | self.item_columns
        return self.items is not None and is_column(
            renamed.get("image_urls", "image_urls"), self.items
        )

    def reader(self) -> Reader:
        return Tabular(self)

    def files(self) -> dict[str, list[str]]:
        items = {"metadata": self.items} if self.items else {}
        return {"interactions": self.interactions} | items | self.feature_files()


class Tabular(Reader):
    """Reader of a user's interactions and items."""

    def __init__(self, source: TabularSource) -> None:
        self._source = source
        columns: dict[str, str] = dict(source.columns.items())
        self._interactions = {role: columns.get(role, role) for role in OF_INTERACTIONS}
        columns |= dict(source.item_columns.items())
        self.item_columns: dict[str, str] = {role: columns.get(role, role) for role in OF_ITEMS}
        self.appended = source.text

    def ratings(self, raw: Mapping[str, Path]) -> str:
        path, names = raw["interactions"], self._interactions
        columns = _check_columns(path, names, {"user", "item", *self._source.columns})
        if path.suffix == ".parquet":
            rows = f"read_parquet({sql.quote_text(path)})"
            kinds = {field.name: field.type for field in pq.read_schema(path)}
            for name in (names["user"], names["item"]):
                if pa.types.is_nested(kinds[name]):
                    raise UserError(
                        f"{path}: column '{name}' is {kinds[name]}; identifiers are texts or integers"
                    )
        elif separator := find_delimiter(path):
            rows = sql.csv_sql(path, columns, True, separator, quotes=True)
        else:
            rows = sql.json_sql(path, columns)
        ends = {"user": sql.strip_sql, "item": sql.strip_sql}
        text = dict.fromkeys(names, "NULL")
        for role, name in names.items():
            if name in columns:
                quoted = name.replace('"', '""')
                text[role] = ends.get(role, sql.trim_sql)(f'"{quoted}"::VARCHAR')
        times = seconds_sql(text["timestamp"])
        for role, reads in (("rating", sql.rating_sql), ("timestamp", seconds_sql)):
            if names[role] in columns:
                given = f"SELECT {text[role]} AS t, {reads(text[role])} AS v FROM {rows} LIMIT {ROWS_INSPECTED}"
                texts, values, example = _first_row(
                    path, f"SELECT count(t), count(v), any_value(t) FROM ({given})"
                )
                if texts and not values:  # otherwise every value would count as missing
                    what = f"holds {example[:80]!r}, which is no {role}; expected {EXPECTED[role]}"
                    raise UserError(f"{path}: column '{names[role]}' {what}")
        if names["timestamp"] in columns and _are_days(path, rows, text["timestamp"]):
            times = days_sql(text["timestamp"])
        split = f", lower({text['split']}) AS split" if names["split"] in columns else ""
        return (
            f"SELECT {text['user']} AS user, {text['item']} AS item, {sql.rating_sql(text['rating'])} AS rating, "
            f"{times} AS timestamp{split} FROM {rows}"
        )

    def repair(
        self, raw: Mapping[str, Path], folder: Path
    ) -> tuple[dict[str, Path], pa.Table] | None:
        """Rewrite CSV interactions as Parquet; return the files and the rejects, or None for other formats."""
        path = raw["interactions"]
        if path.suffix == ".parquet" or find_delimiter(path) is None:
            return None
        columns, to = column_names(path), folder / "repaired.parquet"
        wanted = dict.fromkeys(name for name in self._interactions.values() if name in columns)
        return {**raw, "interactions": to}, repair_rows(
            path, list(wanted), to, self._source.max_reject_share
        )

    def metadata(self, raw: Mapping[str, Path]) -> Path | None:
        if path := raw.get("metadata"):
            columns = _check_columns(
                path, self.item_columns, {"item", *self._source.columns, *self._source.item_columns}
            )
            require_known(self.appended, columns, "text")
        return path

    def name(self, record: dict[str, Any]) -> str | None:
        return sql.identifier_of(record.get(self.item_columns["item"]))

    def product(self, record: dict[str, Any]) -> Product:
        of = {role: record.get(name) for role, name in self.item_columns.items()}
        description = as_text(of["description"])
        if self.appended:
            parts = [of["description"], *map(record.get, self.appended)]
            description = " ".join(filter(None, map(_end_sentence, parts)))
        return Product(
            title=as_text(of["title"]),
            brand=as_text(of["brand"]),
            categories=split_values(of["categories"]),
            description=description,
            image_urls=split_values(of["image_urls"]),
            extra=others(record, [*self.item_columns.values(), *self.appended]),
        )


def _check_columns(path: Path, names: Mapping[str, str], required: Collection[str]) -> list[str]:
    must = {role: name for role, name in names.items() if role in required}
    columns = column_names(path, must.values())
    for role, name in must.items():
        if columns.count(name) > 1:
            raise UserError(f"{path}: two columns are called '{name}'; rename one")
        if name not in columns:
            have = ", ".join(columns)
            raise UserError(
                f"{path}: no column '{name}'; it has {have}; map the {role} under `columns` of the source"
            )
    return columns


def seconds_sql(text: str) -> str:
    """Return SQL that reads seconds, milliseconds, or a date or time (UTC by default) as Unix seconds, or null."""
    whole = f"try_cast({text} AS BIGINT)"
    unix = f"CASE WHEN {whole} > {MILLISECONDS_FROM} THEN {whole} // 1000 ELSE {whole} END"
    return f"coalesce({unix}, epoch(try_cast({text} AS TIMESTAMPTZ))::BIGINT)"


def days_sql(text: str) -> str:
    return f"epoch(CASE WHEN {text} SIMILAR TO '[0-9]{{8}}' THEN try_strptime({text}, '%Y%m%d') END)::BIGINT"


def _are_days(path: Path, rows: str, text: str) -> bool:
    """Return whether timestamps are days such as 20241231, which as seconds would be in 1970."""
    known = f"year(to_timestamp({days_sql('t')})) BETWEEN {FIRST_YEAR} AND {LAST_YEAR}"
    given = f"SELECT {text} AS t FROM {rows} LIMIT {ROWS_INSPECTED}"
    times, read = _first_row(path, f"SELECT count(t), count(*) FILTER ({known}) FROM ({given})")
    return bool(times) and times == read


def _first_row(path: Path, query: str) -> tuple[Any, ...]:
    import duckdb  # `embed` needs the products of this reader only

    try:
        with sql.open_database() as db:
            return tuple(db.execute(query).fetchall()[0])
    except duckdb.Error as e:
        if (
            path.suffix != ".parquet" and find_delimiter(path) is not None
        ):  # the caller falls back to `Tabular.repair`
            raise
        raise UserError(f"{path}: not readable: {one_line(e)}") from None


def _end_sentence(value: Any) -> str:
    text = ", ".join(as_list(value)) if isinstance(value, list) else as_text(value).strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def split_values(value: Any) -> list[str]:
    return as_list(
        [part.strip() for part in value.split(SEPARATOR)] if isinstance(value, str) else value
    )
