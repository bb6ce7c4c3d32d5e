"""Source of the embedded dataset, which sticker_shop.py generates in Amazon's 2014 format."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from alignrec.pipeline.runtime.section import Seed
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources.amazon import Reader2014
from alignrec.pipeline.sources.base import Generated, Reader

MAX_SIZE = 10_000_000  # of users and of items, which bounds the memory of `plan`


class SampleSource(Generated):
    """The embedded sticker shop: OpenMoji drawings, Unicode names, synthetic shoppers."""

    kind: Literal["sample"]
    users: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 3600  # shoppers before filtering
    # stickers before filtering: the first in Unicode order, without skin tones
    items: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 1600
    seed: Seed = 0  # other seeds give other shoppers and defects for the same stickers
    licence: ClassVar[Licence] = Licence(
        {"license": "cc-by-sa-4.0"},
        "The images behind the features are [OpenMoji](https://openmoji.org), the open-source "
        "emoji and icon project, licence [CC BY-SA 4.0]"
        "(https://creativecommons.org/licenses/by-sa/4.0/); so is this release. Names and "
        "categories are Unicode's ([Unicode License](https://www.unicode.org/license.txt)). The "
        "shoppers are synthetic.",
        interactions=True,
        address="https://creativecommons.org/licenses/by-sa/4.0/",
        synthetic="All users and interactions are generated; drawings, names and categories are "
        "not.",
    )

    def reader(self) -> Reader:
        return Reader2014()

    def make(self, raw: Path, progress: Callable[[list[str]], Iterable[str]]) -> dict[str, str]:
        # loads drawing libraries, which other sources do not need
        from alignrec.pipeline.sources import sticker_shop

        return sticker_shop.make_shop(self.users, self.items, self.seed, raw, progress)
