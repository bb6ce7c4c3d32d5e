"""Section `images` of params.yaml."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from alignrec.pipeline.config.base import Positive, Rate, Section, Sha256

RATE = 50.0  # requests a second to one host, at most
Pattern = Annotated[str, Field(pattern=r"^[^{}]*(\{(item|asin)\}[^{}]*)+$")]  # {item} is the item's identifier


class Images(Section):
    """Fetching and normalising images."""

    size: Positive = 256  # shorter side after resizing, pixels; never enlarged
    quality: Annotated[int, Field(ge=1, le=95)] = 90  # JPEG quality of the stored image
    timeout: Rate = 20.0  # seconds for one try
    # folder, or zip archive, that paths of images start from; by default the folder of the item file
    folder: str | None = None
    # path or address of an item's image, such as images/{item}.jpg, or several; tried before the item's own
    pattern: Annotated[list[Pattern], BeforeValidator(lambda raw: [raw] if isinstance(raw, str) else raw)] = []
    # read images outside the folder too, where paths or links lead there; for data that you made yourself
    outside: bool = False
    # hosts of private networks or of this machine, by name or number, that may be requested; others are refused
    private_hosts: list[str] = []
    placeholders: list[Sha256] = []  # sha256 of images that say there is none; run.json lists those of many items
    max_bytes: Positive = 20_000_000  # a larger download is refused
    max_pixels: Positive = 100_000_000  # a larger image is refused before decoding
    shard_rows: Positive = 16384  # items a Parquet file: about 256 MB, at 16 kB an image
