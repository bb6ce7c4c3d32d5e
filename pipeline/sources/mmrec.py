"""A folder in MMRec's format: `.inter` with a published split, an optional item file, feature files.

The split is imported as it is. Item numbers are kept too, because row i of every feature file belongs to itemID i.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.config.base import Mirrors, Section
from pipeline.config.parameters import Licence
from pipeline.errors import UserError
from pipeline.sources.delimited import first_line
from pipeline.sources.feature_files import WithFeatures
from pipeline.sources.lines import json_object
from pipeline.sources.product import Product, as_list, as_text, json_lines, others
from pipeline.sources.sql import named, rating, read_csv, trimmed, whole

COLUMNS = ("userID", "itemID", "rating", "timestamp", "x_label")
TAB = "\t"

INTERACTIONS, ITEMS, USERS = "interactions", "split_items", "split_users"  # roles of the files

Clock = Literal["unix", "order", "none"]
"""what the column timestamp means: seconds, the position in the user's sequence, or nothing"""


class InterFile(Section):
    """Interactions and their split, as MMRec writes them."""

    interactions: Mirrors
    """*.inter or *.inter.gz: tab separated userID itemID rating timestamp x_label (0 train, 1 valid, 2 test)"""
    timestamps: Clock = "none"


class PublishedSplit(InterFile):
    """The split of an Amazon category as MMRec publishes it."""

    items: Mirrors
    """i_id_mapping.csv: asin, itemID"""
    users: Mirrors | None = None
    """u_id_mapping.csv: user_id, userID; without it users are called by their numbers"""

    def files(self) -> dict[str, list[str]]:
        users = {USERS: self.users} if self.users else {}
        return {INTERACTIONS: self.interactions, ITEMS: self.items} | users


def ratings(raw: Mapping[str, Path]) -> str:
    """Return SQL that selects user, item, rating, timestamp, split, all but rating as integers or null."""
    path = raw[INTERACTIONS]
    header = first_line(path).split(TAB)
    if lacking := [c for c in COLUMNS if c not in header]:
        raise UserError(f"{path}, line 1: no column {', '.join(lacking)}; expected tab separated {' '.join(COLUMNS)}")
    return (
        f"SELECT {whole(trimmed('userID'))} AS user, {whole(trimmed('itemID'))} AS item, "
        f"{rating(trimmed('rating'))} AS rating, "
        f"try_cast(try_cast({trimmed('timestamp')} AS DOUBLE) AS BIGINT) AS timestamp, "
        f"{whole(trimmed('x_label'), 'TINYINT')} AS split FROM {read_csv(path, header, True, delimiter=TAB)}"
    )


KEPT = frozenset({"itemID", "asin", "title", "brand", "categories", "description", "imUrl"})

_ITEM = re.compile(rb'"itemID": ?"?([0-9]{1,18})"?[,}]')
_DIGITS = re.compile(r"[0-9]{1,18}")


class MmrecSource(InterFile, WithFeatures):
    """A folder in MMRec's format: split and features are imported as they are."""

    kind: Literal["mmrec"]
    items: Mirrors | None = None
    """JSON lines or CSV with itemID and any of asin, title, brand, categories, description, imUrl"""
    licence: ClassVar[Licence] = Licence(
        {"license": "unknown"},
        "Made from a folder in MMRec's format whose interactions, texts and features were imported as they were; their "
        "terms are their publishers'.",
        texts="none",
    )

    @property
    def has_split(self) -> bool:
        return True

    def files(self) -> dict[str, list[str]]:
        items = {"metadata": self.items} if self.items else {}
        return {"interactions": self.interactions} | items | self.feature_files()


lines = json_lines


def metadata(raw: Mapping[str, Path]) -> Path | None:
    return raw.get("metadata")


def wanted(asins: list[str]) -> dict[str, int]:
    return {str(i): i for i in range(len(asins))}


def key(line: bytes) -> str | None:
    match = _ITEM.search(line)
    return str(int(match[1])) if match else None


def parse(line: bytes) -> dict[str, Any]:
    """Read one item; ValueError, with a short message, if it is not a JSON object with an itemID."""
    record = json_object(line)
    value = record.get("itemID")
    digits = isinstance(value, str) and _DIGITS.fullmatch(value.strip())
    if not (digits or type(value) is int or (isinstance(value, float) and value.is_integer())):
        raise ValueError("no itemID")
    return record | {"itemID": int(value)}  # type: ignore[arg-type]


def name(record: dict[str, Any]) -> str | None:
    return str(record["itemID"])


def product(record: dict[str, Any]) -> Product:
    return Product(
        title=as_text(record.get("title")),
        brand=as_text(record.get("brand")),
        categories=as_list(record.get("categories")),
        description=as_text(record.get("description")),
        image_urls=as_list(record.get("imUrl")),
        extra=others(record, KEPT),
    )


def asins(path: Path | None, items: int) -> list[str]:
    """Return the identifier of items 0 .. items-1: asin, else the number; UserError if one occurs twice."""
    names = [str(i) for i in range(items)]
    seen: set[int] = set()
    for number, line in enumerate(lines(path) if path else (), start=1):
        try:
            record = parse(line)
        except ValueError:
            continue  # the items stage rejects it, with its line number
        item = record["itemID"]
        if item in seen:
            raise UserError(f"{path}, item {number}: itemID {item} occurs twice; keep one row per item")
        seen.add(item)
        if 0 <= item < items and (asin := named(as_text(record.get("asin")))):
            names[item] = asin
    if len(set(names)) < items:
        repeated, _ = Counter(names).most_common(1)[0]
        raise UserError(f"{path}: asin {repeated} belongs to several itemIDs; an asin names one item")
    return names
