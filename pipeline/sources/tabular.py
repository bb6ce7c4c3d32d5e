"""Datasets as one file of interactions and optionally one of items, in Parquet, CSV, TSV or JSON
lines.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline.io import sql
from alignrec.pipeline.io.csv_rows import find_delimiter, repair_rows
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.json_rows import ROWS_INSPECTED, column_names, refuse_repeated
from alignrec.pipeline.io.parquet import is_binary
from alignrec.pipeline.runtime.section import Address, Share, require_known
from alignrec.pipeline.sources.base import (
    EARLIEST_SECONDS,
    Downloaded,
    Product,
    Reader,
    as_list,
    as_text,
    end_sentence,
    extra_fields,
    is_column,
)

InteractionColumn = Literal["user", "item", "rating", "timestamp", "split"]
ItemColumn = Literal["item", "title", "brand", "categories", "description", "image_urls"]
OF_INTERACTIONS = get_args(InteractionColumn)
OF_ITEMS = get_args(ItemColumn)
MAX_SINGLE = 1 << 24  # float32 from here on round integers
FIRST_YEAR = 1900  # plausible years of days such as 20241231
LAST_YEAR = 2100
# smallest number of each unit, larger than the next coarser one before the year 5138
PER_SECOND = {
    100_000_000_000_000_000: 1_000_000_000,
    100_000_000_000_000: 1_000_000,
    100_000_000_000: 1_000,
}
EXPECTED = {"rating": "numbers", "timestamp": "numbers, or dates such as 2024-12-31"}
MAX_SHOWN_VALUE_CHARACTERS = 80  # of a value in a message
SEPARATOR = "|"  # between categories or addresses in one CSV cell


class TabularSource(Downloaded):
    """A user's own files in Parquet, CSV, TSV or JSON lines, text optionally gzipped."""

    kind: Literal["tabular"]
    # one interaction per row: user, item, and optionally rating, timestamp (a date, or seconds,
    # ms, us or ns by their size) and split (train, valid, test, or 0, 1, 2), which is kept
    interactions: Address
    # one item per row: item, and any of title, brand, categories, description, image_urls; |
    # separates values
    items: Address | None = None
    # unix: times of any year; order: positions in a user's sequence; none: ignored; null: times of
    # the years 1990 to 2100, others are refused
    timestamps: Literal["unix", "order", "none"] | None = None
    # our column name -> name in the files, where they differ
    columns: dict[InteractionColumn | ItemColumn, str] = {}
    item_columns: dict[ItemColumn, str] = {}  # overrides `columns` for the item file
    text: list[str] = []  # columns of the item file to append to the description
    # maximum share of interactions that are unreadable rows of CSV, or have a time of another year;
    # see also `items`
    max_reject_share: Share = 0.01

    @property
    def has_images(self) -> bool:
        renamed = self.columns | self.item_columns
        return self.items is not None and is_column(
            renamed.get("image_urls", "image_urls"), self.items
        )

    def reader(self) -> Reader:
        return Tabular(self)

    def files(self) -> dict[str, str]:
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
        self.max_undated = source.max_reject_share if source.timestamps is None else None
        self.clock = source.timestamps or "unix"

    def ratings(self, raw: Mapping[str, Path]) -> str:
        path = raw["interactions"]
        names = self._interactions
        columns, rows = self._table(path)

        texts = dict.fromkeys(names, "NULL")  # role -> SQL of its text
        for role, name in names.items():
            if name in columns:
                strip = sql.strip_sql if role in ("user", "item") else sql.trim_sql
                texts[role] = strip(f"c{columns.index(name)}::VARCHAR")

        rating = sql.rating_sql(texts["rating"])
        time = "NULL::BIGINT"
        if names["rating"] in columns:
            _require_values(path, rows, names["rating"], "rating", texts["rating"], rating)
        if names["timestamp"] in columns and self.clock != "none":
            text = texts["timestamp"]
            time = sql.whole_sql(text) if self.clock == "order" else seconds_sql(text)
            _require_values(path, rows, names["timestamp"], "timestamp", text, time)
            if self.clock == "unix" and _are_days(path, rows, text):
                time = days_sql(text)

        selected = [
            f"{texts['user']} AS user",
            f"{texts['item']} AS item",
            f"{rating} AS rating",
            f"{time} AS timestamp",
        ]
        if names["split"] in columns:
            selected.append(f"lower({texts['split']}) AS split")
        return f"SELECT {', '.join(selected)} FROM {rows}"

    def has_positions(self, path: Path) -> bool:
        """Return whether the timestamps of interactions are numbers below any time of 1990."""
        columns, rows = self._table(path)
        name = self._interactions["timestamp"]
        if name not in columns:
            return False

        text = sql.trim_sql(f"c{columns.index(name)}::VARCHAR")
        if _are_days(path, rows, text):
            return False
        value = sql.whole_sql(text)
        least_and_most = f"min({value}), max({value})"
        same = f"count({text}) = count({value})"
        least, most, are_whole = _first_row(path, f"SELECT {least_and_most}, {same} FROM {rows}")
        return least is not None and are_whole and least >= 0 and most < EARLIEST_SECONDS

    def _table(self, path: Path) -> tuple[list[str], str]:
        """Return the columns of interactions, and SQL for their rows, as in `_rows_sql`."""
        names = self._interactions
        columns = _check_columns(path, names, {"user", "item", *self._source.columns})
        is_json = path.suffix != ".parquet" and find_delimiter(path) is None
        if is_json:  # each line may have other keys
            columns = [name for name in dict.fromkeys(names.values()) if name in columns]
        return columns, _rows_sql(path, columns, [names["user"], names["item"]])

    def repair(
        self, raw: Mapping[str, Path], folder: Path
    ) -> tuple[dict[str, Path], pa.Table] | None:
        """Rewrite CSV interactions as Parquet.

        Return the files and the rejects, or None for other formats.
        """
        path = raw["interactions"]
        if path.suffix == ".parquet" or find_delimiter(path) is None:
            return None

        present = column_names(path)
        columns = [name for name in dict.fromkeys(self._interactions.values()) if name in present]
        target = folder / "repaired.parquet"
        rejects = repair_rows(path, columns, target, self._source.max_reject_share)
        return {**raw, "interactions": target}, rejects

    def metadata(self, raw: Mapping[str, Path]) -> Path | None:
        path = raw.get("metadata")
        if path is not None:
            required = {"item", *self._source.columns, *self._source.item_columns}
            columns = _check_columns(path, self.item_columns, required)
            require_known(self.appended, columns, "text")
            refuse_repeated(path, columns, self.appended)
        return path

    def name(self, record: dict[str, Any]) -> str | None:
        return sql.identifier_of(record.get(self.item_columns["item"]))

    def product(self, record: dict[str, Any]) -> Product:
        values = {role: record.get(name) for role, name in self.item_columns.items()}
        description = as_text(values["description"])
        if self.appended:
            parts = [values["description"], *map(record.get, self.appended)]
            description = " ".join(filter(None, map(_end_sentence, parts)))
        return Product(
            title=as_text(values["title"]),
            brand=as_text(values["brand"]),
            categories=split_values(values["categories"]),
            description=description,
            image_urls=split_values(values["image_urls"]),
            extra=extra_fields(record, [*self.item_columns.values(), *self.appended]),
        )


def _rows_sql(path: Path, columns: Sequence[str], identifiers: Sequence[str]) -> str:
    """Return SQL for the rows of a file, as texts unless it is Parquet.

    Columns are called c0, c1, ..., since DuckDB does not tell `user` from `USER`.
    """
    numbered = sql.numbered_columns(len(columns))
    if path.suffix == ".parquet":
        schema = pq.read_schema(path)
        kinds = {field.name: field.type for field in schema}
        for name in identifiers:
            if pa.types.is_nested(kinds[name]):
                fault = f"column '{name}' is {kinds[name]}; identifiers are texts or integers"
                raise UserError(f"{path}: {fault}")
        rows = sql.parquet_sql(path, numbered)
        decoded = [
            f"decode({column}) AS {column}"
            for column, field in zip(numbered, schema, strict=True)
            if is_binary(field.type)
        ]
        if decoded:
            rows = f"(SELECT * REPLACE ({', '.join(decoded)}) FROM {rows})"
        for name in identifiers:
            if pa.types.is_floating(kinds[name]):
                limit = sql.MAX_WHOLE if pa.types.is_float64(kinds[name]) else MAX_SINGLE
                column = f"c{columns.index(name)}"
                _require_whole(path, rows, name, column, limit)
                whole = f"try_cast({column} AS BIGINT) AS {column}"  # null for NaN
                rows = f"(SELECT * REPLACE ({whole}) FROM {rows})"
        return rows

    separator = find_delimiter(path)
    if separator:
        return sql.csv_sql(path, numbered, True, separator, quotes=True)

    folded = [name.casefold() for name in columns]
    for name in columns:
        if folded.count(name.casefold()) > 1:
            raise UserError(f"{path}: another key differs from '{name}' in case only; rename one")
    rows = f"{sql.json_sql(path, columns, identifiers)} AS t({', '.join(numbered)})"
    for name in identifiers:
        column = f"c{columns.index(name)}"
        text = f"({column}->>'$')"
        is_float = f"json_type({column}) = 'DOUBLE' AND contains({text}, '.')"
        whole = f"CASE WHEN {is_float} THEN {sql.whole_sql(text)}::VARCHAR ELSE {text} END"
        rows = f"(SELECT * REPLACE ({whole} AS {column}) FROM {rows})"
    return rows


def _require_whole(path: Path, rows: str, name: str, column: str, limit: int) -> None:
    """Raise UserError for a float that is no whole number below a limit; NaN is missing."""
    odd = f"NOT isnan({column}) AND ({column} <> floor({column}) OR abs({column}) >= {limit})"
    (found,) = _first_row(path, f"SELECT any_value({column}) FILTER ({odd}) FROM {rows}")
    if found is not None:
        raise UserError(
            f"{path}: column '{name}' holds {found}; identifiers are texts or whole numbers"
        )


def _require_values(path: Path, rows: str, name: str, role: str, text: str, value: str) -> None:
    """Raise UserError if no text is a value; otherwise all would count as missing."""
    first_rows = f"SELECT {text} AS t, {value} AS v FROM {rows} LIMIT {ROWS_INSPECTED}"
    counts = f"SELECT count(t), count(v), any_value(t) FROM ({first_rows})"
    n_texts, n_values, example = _first_row(path, counts)
    if n_texts and not n_values:
        shown = repr(example[:MAX_SHOWN_VALUE_CHARACTERS])
        fault = f"holds {shown}, which is no {role}; expected {EXPECTED[role]}"
        raise UserError(f"{path}: column '{name}' {fault}")


def _check_columns(path: Path, names: Mapping[str, str], required: Collection[str]) -> list[str]:
    columns_of_roles = {role: name for role, name in names.items() if role in required}
    columns = column_names(path, columns_of_roles.values())
    refuse_repeated(path, columns, names.values())
    for role, name in columns_of_roles.items():
        if name not in columns:
            present = ", ".join(columns)
            raise UserError(
                f"{path}: no column '{name}'; it has {present}; "
                f"map the {role} under `columns` of the source"
            )
    return columns


def seconds_sql(text: str) -> str:
    """Return SQL that reads a number, or a date or time (UTC by default), as Unix seconds, or null.

    Numbers are seconds, milliseconds, microseconds or nanoseconds by their size.
    """
    whole = f"try_cast({text} AS BIGINT)"
    units = []
    for smallest, per_second in PER_SECOND.items():
        units.append(f"WHEN {whole} > {smallest} THEN {whole} // {per_second}")
    unix = f"CASE {' '.join(units)} ELSE {whole} END"
    return f"coalesce({unix}, epoch(try_cast({text} AS TIMESTAMPTZ))::BIGINT)"


def days_sql(text: str) -> str:
    date = f"CASE WHEN {text} SIMILAR TO '[0-9]{{8}}' THEN try_strptime({text}, '%Y%m%d') END"
    return f"epoch({date})::BIGINT"


def _are_days(path: Path, rows: str, text: str) -> bool:
    """Return whether timestamps are days such as 20241231, which as seconds would be in 1970."""
    year = f"year(to_timestamp({days_sql('t')}))"
    is_plausible = f"{year} BETWEEN {FIRST_YEAR} AND {LAST_YEAR}"
    first_rows = f"SELECT {text} AS t FROM {rows} LIMIT {ROWS_INSPECTED}"
    counts = f"SELECT count(t), count(*) FILTER ({is_plausible}) FROM ({first_rows})"
    n_times, n_plausible = _first_row(path, counts)
    return bool(n_times) and n_times == n_plausible


def _first_row(path: Path, query: str) -> tuple[Any, ...]:
    import duckdb  # `embed` needs the products of this reader only

    try:
        with sql.open_database() as db:
            return tuple(db.execute(query).fetchall()[0])
    except duckdb.Error as e:
        is_delimited = path.suffix != ".parquet" and find_delimiter(path) is not None
        if is_delimited:  # the caller falls back to `Tabular.repair`
            raise
        raise UserError(f"{path}: not readable: {one_line(e)}") from None


def _end_sentence(value: Any) -> str:
    text = ", ".join(as_list(value)) if isinstance(value, list) else as_text(value).strip()
    return end_sentence(text)


def split_values(value: Any) -> list[str]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(SEPARATOR)]
    return as_list(value)
