"""A dataset's source in the parameters, and the licence of data derived from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from alignrec.pipeline.runtime.section import Section

# item fields in a release besides identifier and hashes: title, brand, categories, description,
# text and image address; title and categories; none
Shown = Literal["all", "titles", "none"]


@dataclass(frozen=True)
class Licence:
    """Licence of data derived from a source."""

    header: Mapping[str, str]  # keys of the Hub's metadata block
    text: str  # human-readable terms
    interactions: bool = False  # whether a release may contain the interactions
    synthetic: str = ""  # sentence that says which data are synthetic; empty if none are
    address: str = ""  # URL of the licence
    texts: Shown = "all"  # item fields that a release may contain


OWN = Licence(
    {"license": "unknown"},
    "Made from files that the publisher of this release named; "
    "their terms are the publisher's to state.",
)


class Source(Section):
    """A dataset under `sources` of params.yaml, and base class of all kinds of source.

    A kind overrides `reader` and is registered in pipeline/sources/base.py. `licence` applies to
    data derived from it; `has_split` is whether its interactions come with a split; `has_images`
    whether its items can have images, false if only the download shows that.
    """

    kind: str
    """a name in pipeline/sources/base.py"""
    licence: ClassVar[Licence] = OWN

    @property
    def has_split(self) -> bool:
        return False

    @property
    def has_images(self) -> bool:
        return True

    @abstractmethod
    def reader(self) -> Any:
        """Return the reader of its raw files, a `Reader` of pipeline/sources/base.py."""
