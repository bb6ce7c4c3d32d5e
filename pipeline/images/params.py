"""Section `images` of params.yaml."""

from typing import Annotated

from pydantic import Field

from alignrec.pipeline.runtime.section import WRAPPED, Positive, Rate, Section, Sha256

MAX_SIDE = 1 << 16  # pixels
RATE = 50.0  # maximum requests per second to one host
# {item} is the item's identifier
Pattern = Annotated[str, Field(pattern=r"^[^{}]*(\{(item|asin)\}[^{}]*)+$")]


class Images(Section):
    """Section `images`: download and normalisation of images."""

    size: Annotated[int, Field(gt=0, le=MAX_SIDE)] = 256
    """shorter side after resizing, pixels; never enlarged"""
    quality: Annotated[int, Field(ge=1, le=95)] = 90
    """JPEG quality of the stored image"""
    timeout: Rate = 20.0
    """seconds per attempt"""
    folder: str | None = None
    """folder or zip archive that image paths are relative to.

    Default: the folder of the item file.
    """
    pattern: Annotated[list[Pattern], WRAPPED] = []
    """path or URL of an item's image, such as images/{item}.jpg, or a list.

    Tried before addresses in the metadata.
    """
    outside: bool = False
    """allow paths and links that lead outside the folder; only for data that you trust"""
    private_hosts: list[str] = []
    """hosts in private networks or on this machine, by name or IP address, that may be accessed"""
    placeholders: list[Sha256] = []
    """sha256 of placeholder images; run.json lists images of many items"""
    max_bytes: Positive = 20_000_000
    """larger downloads are refused"""
    max_pixels: Positive = 100_000_000
    """larger images are refused before decoding"""
    shard_rows: Positive = 16384
    """items per Parquet file: about 256 MB at 16 kB per image"""
