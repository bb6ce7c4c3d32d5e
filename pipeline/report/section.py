"""A section of the page: its pictures, and its tables folded below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.facts.table import Table
from pipeline.report.plots import Picture


@dataclass(frozen=True)
class Section:
    """A section of the page, with a link in its navigation."""

    anchor: str
    link: str
    heading: str
    note: str = ""
    drawn: Sequence[Picture | None] = ()
    """pictures; None where there was nothing to draw"""
    maps: Sequence[Table] = ()
    """tables that are pictures themselves, by the tint of their cells"""
    tables: Sequence[Table] = field(default_factory=list)
    """folded on the page"""

    @property
    def pictures(self) -> list[Picture]:
        """What was drawn."""
        return [picture for picture in self.drawn if picture is not None]

    def __bool__(self) -> bool:
        return bool(self.pictures or self.maps or self.tables)
