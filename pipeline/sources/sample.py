"""The embedded dataset as a source: it is made on the spot (sticker_shop.py), in Amazon's 2014 format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, Literal, cast

from pipeline.config.base import Positive
from pipeline.sources import amazon2014
from pipeline.sources.base import Licence, Made, Reader

TERMS = Licence(
    {"license": "cc-by-sa-4.0"},
    "The pictures behind the features are [OpenMoji](https://openmoji.org), the open-source emoji and icon project, "
    "licence [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/); so is this release. Names and categories "
    "are Unicode's ([Unicode License](https://www.unicode.org/license.txt)). The shoppers are synthetic.",
)


class SampleSource(Made):
    """The embedded sticker shop: OpenMoji drawings, Unicode names, synthetic shoppers."""

    kind: Literal["sample"]
    users: Positive = 3600
    """shoppers before filtering"""
    items: Positive = 1600
    """stickers before filtering; the first in Unicode order, no skin tones"""
    seed: int = 0
    """another seed is another shop with the same stickers"""
    licence: ClassVar[Licence] = TERMS

    def reader(self) -> Reader:
        """Return the reader of Amazon's 2014 format."""
        return cast(Reader, amazon2014)

    def make(self, raw: Path, progress: Callable[[list[str]], Iterable[str]]) -> dict[str, str]:
        """Write reviews, metadata and pictures."""
        from pipeline.sources import sticker_shop  # drawing libraries, which other sources need not wait for

        return sticker_shop.make(self, raw, progress)
