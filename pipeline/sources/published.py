"""A published split in MMRec's layout: a `.inter` file, and what its numbers mean at the source.

Item numbers, user numbers and the division of the interactions are kept, so that figures compare with published ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.config.base import Mirrors, Section
from pipeline.errors import UserError
from pipeline.sources.header import first_line
from pipeline.sources.sql import rating, read_csv, trimmed, whole

COLUMNS = ("userID", "itemID", "rating", "timestamp", "x_label")
TAB = "\t"

INTERACTIONS, ITEMS, USERS = "interactions", "split_items", "split_users"  # roles of the files

Clock = Literal["unix", "order", "none"]
"""what the column timestamp means: seconds, the position in the user's sequence, or nothing"""


class PublishedSplit(Section):
    """The split of an Amazon category as MMRec publishes it."""

    interactions: Mirrors
    """*.inter or *.inter.gz: tab separated userID itemID rating timestamp x_label (0 train, 1 valid, 2 test)"""
    items: Mirrors
    """i_id_mapping.csv: asin, itemID"""
    users: Mirrors | None = None
    """u_id_mapping.csv: user_id, userID; without it users are called by their numbers"""
    timestamps: Clock = "none"

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
