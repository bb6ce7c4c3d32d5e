"""What every source of data says of itself in params.yaml; pipeline/sources/ has the kinds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.config.base import Section


@dataclass(frozen=True)
class Licence:
    """Licence of data that is made from a source."""

    header: Mapping[str, str]
    """keys of the Hub's metadata block"""
    text: str
    """for people"""
    interactions: bool = False
    """whether it lets a release carry the interactions"""


OWN = Licence(
    {"license": "unknown"},
    "Made from files that the publisher of this release named; their terms are the publisher's to state.",
)


class Source(Section):
    """A dataset under `sources` of params.yaml. A new kind is a file with a subclass, and an entry in its registry."""

    kind: str
    """a name in pipeline/sources/registry.py"""
    licence: ClassVar[Licence] = OWN
    has_split: ClassVar[bool] = False
    """whether its interactions come with a split, which is imported as it is"""

    @abstractmethod
    def reader(self) -> Any:
        """Return what reads its files: a Reader of pipeline/sources/base.py."""
