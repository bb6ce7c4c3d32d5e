"""Datasets in MMRec's format: `.inter` with a published split, optional items and features."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.json_rows import refuse_repeated
from alignrec.pipeline.io.sql import csv_sql, identifier_of, rating_sql, trim_sql, whole_sql
from alignrec.pipeline.io.text import first_line
from alignrec.pipeline.runtime.section import Address, Section
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources.base import Downloaded, Reader, as_text, is_column

# Split and item numbers are imported unchanged, because row i of every feature file belongs to
# itemID i.
COLUMNS = ("userID", "itemID", "rating", "timestamp", "x_label")
TAB = "\t"
NUMBER = re.compile(r"([0-9]{1,18})(?:\.0)?")

INTERACTIONS_ROLE = "interactions"  # roles of the files
SPLIT_ITEMS_ROLE = "split_items"
SPLIT_USERS_ROLE = "split_users"
# columns of identifiers in mapping files
ITEM_NAMES = ("asin", "parent_asin")
USER_NAMES = ("user_id", "reviewerID")


class InterFile(Section):
    """MMRec's file of interactions and their split."""

    interactions: Address
    """*.inter or *.inter.gz: tab separated userID itemID rating timestamp x_label (0 train, 1
    valid, 2 test)"""
    timestamps: Literal["unix", "order", "none"] | None = None
    """unix, order (positions in a user's sequence) or none; null: unix if the file has Unix
    seconds, otherwise none"""


class PublishedSplit(InterFile):
    """MMRec's published split of an Amazon category."""

    items: Address  # i_id_mapping.csv: asin, itemID
    # u_id_mapping.csv: user_id, userID; by default users are named by number
    users: Address | None = None

    def files(self) -> dict[str, str]:
        users = {SPLIT_USERS_ROLE: self.users} if self.users else {}
        return {INTERACTIONS_ROLE: self.interactions, SPLIT_ITEMS_ROLE: self.items} | users


def ratings_sql(path: Path) -> str:
    """Return SQL that selects user, item, timestamp and split as integers or null, and rating."""
    header = first_line(path).split(TAB)
    lacking = ", ".join(column for column in COLUMNS if column not in header)
    if lacking:
        expected = f"tab separated {' '.join(COLUMNS)}"
        raise UserError(f"{path}, line 1: no column {lacking}; expected {expected}")
    refuse_repeated(path, header, COLUMNS)

    # others only keep their place, whatever their names
    columns = [name if name in COLUMNS else f"c{i}" for i, name in enumerate(header)]
    time = f"try_cast({trim_sql('timestamp')} AS DOUBLE)"
    return (
        f"SELECT {whole_sql(trim_sql('userID'))} AS user, "
        f"{whole_sql(trim_sql('itemID'))} AS item, "
        f"{rating_sql(trim_sql('rating'))} AS rating, "
        f"try_cast({time} AS BIGINT) AS timestamp, "
        f"{whole_sql(trim_sql('x_label'), 'TINYINT')} AS split "
        f"FROM {csv_sql(path, columns, True, delimiter=TAB)}"
    )


class MmrecReader(Reader):
    """Reader of MMRec's files, where items are identified by number."""

    kept = frozenset({"itemID", "asin", "title", "brand", "categories", "description", "imUrl"})
    pattern = re.compile(rb'"itemID": ?"?(0|[1-9][0-9]{0,17})"?[,}]')

    def ratings(self, raw: Mapping[str, Path]) -> str:
        return ratings_sql(raw[INTERACTIONS_ROLE])

    def wanted(self, asins: list[str]) -> dict[str, int]:
        return {str(i): i for i in range(len(asins))}

    def parse(self, line: bytes) -> dict[str, Any]:
        record = super().parse(line)
        number = NUMBER.fullmatch(str(record.get("itemID")).strip())
        if number is None:
            raise ValueError("no itemID")
        return record | {"itemID": int(number[1])}

    def name(self, record: dict[str, Any]) -> str | None:
        return str(record["itemID"])


class MmrecSource(InterFile, Downloaded):
    """Data in MMRec's format, whose split and features are imported unchanged."""

    kind: Literal["mmrec"]
    # JSON lines or CSV with itemID and any of asin, title, brand, categories, description, imUrl
    items: Address | None = None
    # i_id_mapping.csv: asin, itemID; by default the item file names the items
    item_mapping: Address | None = None
    # u_id_mapping.csv: user_id, userID; by default users are named by number
    user_mapping: Address | None = None
    licence: ClassVar[Licence] = Licence(
        {"license": "unknown"},
        "Made from a folder in MMRec's format whose interactions, texts and features were imported "
        "as they were; their terms are their publishers'.",
        texts="none",
    )

    @property
    def has_split(self) -> bool:
        return True

    @property
    def has_images(self) -> bool:
        return self.items is not None and is_column("imUrl", self.items)

    def files(self) -> dict[str, str]:
        files = {INTERACTIONS_ROLE: self.interactions}
        if self.items:
            files["metadata"] = self.items
        if self.item_mapping:
            files[SPLIT_ITEMS_ROLE] = self.item_mapping
        if self.user_mapping:
            files[SPLIT_USERS_ROLE] = self.user_mapping

        return files | self.feature_files()

    def reader(self) -> Reader:
        return MmrecReader()


def read_asins(path: Path | None, items: int) -> list[str]:
    """Return the identifiers of items 0 .. items-1, by default their numbers.

    Raises UserError for duplicates.
    """
    names = [str(number) for number in range(items)]
    for item, asin in _read_items(path) if path else ():
        if item < items and asin:
            names[item] = asin

    if len(set(names)) < items:
        repeated, _ = Counter(names).most_common(1)[0]
        raise UserError(
            f"{path}: asin {repeated} belongs to several itemIDs; an asin names one item"
        )
    return names


def _read_items(path: Path) -> Iterator[tuple[int, str | None]]:
    """Yield itemID and asin of each row; raise UserError if an itemID occurs twice."""
    reader = MmrecReader()
    distinct: set[int] = set()
    for number, line in enumerate(reader.lines(path), start=1):
        try:
            record = reader.parse(line)
        except ValueError:
            continue  # the items stage reports it, with its line number

        item = record["itemID"]
        if item in distinct:
            raise UserError(
                f"{path}, item {number}: itemID {item} occurs twice; keep one row per item"
            )
        distinct.add(item)
        yield item, identifier_of(as_text(record.get("asin")))
