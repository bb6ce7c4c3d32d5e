"""Datasets in MMRec's format: `.inter` with a published split, and optional item and feature files."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pyarrow import csv

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.sql import csv_sql, identifier_of, rating_sql, trim_sql, whole_sql
from alignrec.pipeline.io.text import first_line
from alignrec.pipeline.runtime.section import Mirrors, Section
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources.base import Downloaded, Reader, as_text, is_column

# Split and item numbers are imported unchanged, because row i of every feature file belongs to itemID i.
COLUMNS = ("userID", "itemID", "rating", "timestamp", "x_label")
TAB = "\t"
NUMBER = re.compile(r"([0-9]{1,18})(?:\.0)?")

INTERACTIONS, ITEMS, USERS = "interactions", "split_items", "split_users"  # roles of the files
# columns of identifiers in mapping files
ITEM_NAMES = ("asin", "parent_asin")
USER_NAMES = ("user_id", "reviewerID")


class InterFile(Section):
    """MMRec's file of interactions and their split."""

    interactions: Mirrors
    """*.inter or *.inter.gz: tab separated userID itemID rating timestamp x_label (0 train, 1 valid, 2 test)"""
    timestamps: Literal["unix", "order", "none"] | None = None
    """unix, order (positions in a user's sequence) or none; null: unix if the file has Unix seconds, otherwise none"""


class PublishedSplit(InterFile):
    """MMRec's published split of an Amazon category."""

    items: Mirrors  # i_id_mapping.csv: asin, itemID
    users: Mirrors | None = (
        None  # u_id_mapping.csv: user_id, userID; by default users are named by number
    )

    def files(self) -> dict[str, list[str]]:
        users = {USERS: self.users} if self.users else {}
        return {INTERACTIONS: self.interactions, ITEMS: self.items} | users


def ratings_sql(path: Path) -> str:
    """Return SQL that selects user, item, timestamp and split as integers or null, and rating."""
    header = first_line(path).split(TAB)
    if lacking := [c for c in COLUMNS if c not in header]:
        raise UserError(
            f"{path}, line 1: no column {', '.join(lacking)}; expected tab separated {' '.join(COLUMNS)}"
        )
    return (
        f"SELECT {whole_sql(trim_sql('userID'))} AS user, {whole_sql(trim_sql('itemID'))} AS item, "
        f"{rating_sql(trim_sql('rating'))} AS rating, "
        f"try_cast(try_cast({trim_sql('timestamp')} AS DOUBLE) AS BIGINT) AS timestamp, "
        f"{whole_sql(trim_sql('x_label'), 'TINYINT')} AS split FROM {csv_sql(path, header, True, delimiter=TAB)}"
    )


class MmrecReader(Reader):
    """Reader of MMRec's files, where items are identified by number."""

    kept = frozenset({"itemID", "asin", "title", "brand", "categories", "description", "imUrl"})
    pattern = re.compile(rb'"itemID": ?"?(0|[1-9][0-9]{0,17})"?[,}]')

    def ratings(self, raw: Mapping[str, Path]) -> str:
        return ratings_sql(raw[INTERACTIONS])

    def wanted(self, asins: list[str]) -> dict[str, int]:
        return {str(i): i for i in range(len(asins))}

    def parse(self, line: bytes) -> dict[str, Any]:
        record = super().parse(line)
        if not (number := NUMBER.fullmatch(str(record.get("itemID")).strip())):
            raise ValueError("no itemID")
        return record | {"itemID": int(number[1])}

    def name(self, record: dict[str, Any]) -> str | None:
        return str(record["itemID"])


class MmrecSource(InterFile, Downloaded):
    """Data in MMRec's format, whose split and features are imported unchanged."""

    kind: Literal["mmrec"]
    # JSON lines or CSV with itemID and any of asin, title, brand, categories, description, imUrl
    items: Mirrors | None = None
    # i_id_mapping.csv: asin, itemID; by default the item file names the items
    item_mapping: Mirrors | None = None
    # u_id_mapping.csv: user_id, userID; by default users are named by number
    user_mapping: Mirrors | None = None
    licence: ClassVar[Licence] = Licence(
        {"license": "unknown"},
        "Made from a folder in MMRec's format whose interactions, texts and features were imported as they were; their "
        "terms are their publishers'.",
        texts="none",
    )

    @property
    def has_split(self) -> bool:
        return True

    @property
    def has_images(self) -> bool:
        return self.items is not None and is_column("imUrl", self.items)

    def files(self) -> dict[str, list[str]]:
        files = {INTERACTIONS: self.interactions}
        if self.items:
            files["metadata"] = self.items
        if self.item_mapping:
            files[ITEMS] = self.item_mapping
        if self.user_mapping:
            files[USERS] = self.user_mapping

        return files | self.feature_files()

    def reader(self) -> Reader:
        return MmrecReader()


def read_asins(path: Path | None, items: int) -> list[str]:
    """Return the identifiers of items 0 .. items-1, by default their numbers; raise UserError for duplicates."""
    reader, names = MmrecReader(), [str(i) for i in range(items)]
    seen: set[int] = set()
    for number, line in enumerate(reader.lines(path) if path else (), start=1):
        try:
            record = reader.parse(line)
        except ValueError:
            continue  # the items stage reports it, with its line number
        item = record["itemID"]
        if item in seen:
            raise UserError(
                f"{path}, item {number}: itemID {item} occurs twice; keep one row per item"
            )
        seen.add(item)
        if 0 <= item < items and (asin := identifier_of(as_text(record.get("asin")))):
            names[item] = asin
    if len(set(names)) < items:
        repeated, _ = Counter(names).most_common(1)[0]
        raise UserError(
            f"{path}: asin {repeated} belongs to several itemIDs; an asin names one item"
        )
    return names


def read_numbering(path: Path, number: str, names: Sequence[str], count: int) -> list[str]:
    """Return the identifiers of numbers 0 .. count-1, from a mapping file with columns `number` and one of `names`."""
    columns = text_table(path)
    name = next((n for n in names if n in columns), None)
    if number not in columns or name is None:
        raise UserError(
            f"{path}: expected the columns {names[0]} and {number}; it has {', '.join(columns)}"
        )
    found = [value.strip() for value in columns[name].to_pylist()]
    if len({*found, ""}) <= len(found):
        repeated, _ = Counter(["", *found]).most_common(1)[0]
        raise UserError(f"{path}: {name} {repeated!r} is empty or occurs twice; keep one row each")
    if (rows_of := read_permutation(columns[number])) is None or len(found) != count:
        raise UserError(
            f"{path}: {len(found):,} rows, expected {number} 0 .. {count - 1:,}, each once"
        )
    return [found[i] for i in np.argsort(rows_of)]


def read_permutation(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return the numbers of a text column, int64 [N], if they are a permutation of 0 .. N-1, otherwise None."""
    try:
        numbers = column.cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        return None
    whole = numbers.dtype.kind == "i" and np.array_equal(np.sort(numbers), np.arange(len(numbers)))
    return numbers if whole and len(numbers) else None


def text_table(path: Path) -> dict[str, pa.ChunkedArray]:
    try:
        header = first_line(path)
        delimiter = TAB if TAB in header else ","
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        lines, values = (
            csv.ReadOptions(column_names=names, skip_rows=1),
            csv.ParseOptions(delimiter=delimiter),
        )
        texts = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        table = csv.read_csv(path, lines, values, texts)
        return {name: table.columns[names.index(name)] for name in dict.fromkeys(names)}
    except OSError as e:
        raise UserError(
            f"{path}: {e.strerror or e}; --order names a mapping file: identifier, row"
        ) from None
    except (pa.ArrowException, UnicodeDecodeError) as e:
        raise UserError(
            f"{path}: not readable as a mapping file: {' '.join(str(e).split())}"
        ) from None
