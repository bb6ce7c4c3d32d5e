"""Source of the embedded dataset: raw files in Amazon's 2014 format, shipped in stickers.zip."""

import gzip
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from alignrec.pipeline import io
from alignrec.pipeline.runtime.source import Licence
from alignrec.pipeline.sources.amazon import Reader2014
from alignrec.pipeline.sources.base import Generated, Reader

ARCHIVE = Path(__file__).with_name("stickers.zip")
FILES = {"reviews": "reviews_Stickers.json.gz", "metadata": "meta_Stickers.json.gz"}  # role -> name

Line = tuple[dict[str, Any], bytes]  # a record, and the line that it was read from


class SampleSource(Generated):
    """The embedded sticker shop: OpenMoji drawings, Unicode names, synthetic shoppers."""

    kind: Literal["sample"]
    # shoppers before filtering: those who bought most of the items below
    users: Annotated[int, Field(ge=1, le=3600)] = 3600
    # stickers before filtering: those that were bought most often
    items: Annotated[int, Field(ge=1, le=1600)] = 1600
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
        with zipfile.ZipFile(ARCHIVE) as archive:
            reviews = self._read_lines(archive, "reviews")
            products = self._read_lines(archive, "metadata")

            sales = Counter(review["asin"] for review, _ in reviews)
            asins = [product["asin"] for product, _ in products]
            items = set(sorted(asins, key=sales.__getitem__, reverse=True)[: self.items])
            products = [line for line in products if line[0]["asin"] in items]
            reviews = [line for line in reviews if line[0]["asin"] in items]

            purchases = Counter(review["reviewerID"] for review, _ in reviews)
            users = {user for user, _ in purchases.most_common(self.users)}
            reviews = [line for line in reviews if line[0]["reviewerID"] in users]

            _write_lines(raw, "reviews", reviews)
            _write_lines(raw, "metadata", products)
            pictures = [product["imUrl"] for product, _ in products if "imUrl" in product]
            _write_pictures(raw, archive, progress(pictures))
        return dict(FILES)

    def _read_lines(self, archive: zipfile.ZipFile, role: str) -> list[Line]:
        text = gzip.decompress(archive.read(FILES[role]))
        return [(self.reader().parse(line), line) for line in text.splitlines(keepends=True)]


def _write_lines(raw: Path, role: str, lines: list[Line]) -> None:
    text = b"".join(line for _, line in lines)
    io.write_bytes(raw / FILES[role], gzip.compress(text, compresslevel=6, mtime=0))


def _write_pictures(raw: Path, archive: zipfile.ZipFile, addresses: Iterable[str]) -> None:
    """Write pictures as PNG; the archive has smaller WebP of the same pixels, but broken files as
    they are.
    """
    from PIL import Image  # which other sources do not need

    members = set(archive.namelist())
    for address in addresses:
        path = raw / address
        path.parent.mkdir(parents=True, exist_ok=True)
        if address in members:
            path.write_bytes(archive.read(address))
            continue
        member = str(PurePosixPath(address).with_suffix(".webp"))
        with archive.open(member) as file, Image.open(file) as image:
            image.save(path, "PNG", compress_level=3)
