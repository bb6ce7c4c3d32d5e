"""A section of the page: its pictures, and its tables folded below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.report.plots import Picture
from pipeline.report.tables import Table


@dataclass(frozen=True)
class Section:
    """A section of the page, with a link in its navigation."""

    anchor: str
    link: str
    heading: str
    note: str = ""
    pictures: Sequence[Picture] = ()
    maps: Sequence[Table] = ()
    """tables that are pictures themselves, by the tint of their cells"""
    tables: Sequence[Table] = field(default_factory=list)
    """folded on the page"""

    def __bool__(self) -> bool:
        return bool(self.pictures or self.maps or self.tables)


def named(table: Table, protocol: str, several: bool) -> Table:
    """Return a table whose heading names the protocol, where there are several."""
    return replace(table, heading=f"{table.heading}, {protocol}") if several else table
