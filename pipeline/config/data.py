"""Parameters of the stages that prepare data: download, interactions, items, images."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from pipeline.config.base import Address, Positive, Rate, Section, Share

TextField = Literal["title", "brand", "categories", "description"]
PATTERN = re.compile(r"[^{}]*(?:\{(?:item|asin)\}[^{}]*)+")


def _with_item(pattern: str) -> str:
    if not PATTERN.fullmatch(pattern):
        raise ValueError("expected {item} or {asin}, and no other braces, as in images/{item}.jpg")
    return pattern


Pattern = Annotated[str, AfterValidator(_with_item)]
"""has the item's identifier in place of {item} or {asin}"""


class Download(Section):
    """Fetching raw files."""

    timeout: Rate = 30.0
    """seconds without a byte before a try is given up"""
    retries: Annotated[int, Field(ge=0)] = 5
    """tries after the first, with exponential back-off"""


class Interactions(Section):
    """Filtering, numbering, splitting."""

    min_rating: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """explicit ratings as implicit feedback: lower ones are dropped, before users and items are counted; null: none"""
    user_core: Positive = 5
    """users with fewer interactions are dropped; repeatedly, because items lose interactions too"""
    item_core: Positive = 5
    """items with fewer interactions are dropped, likewise"""
    protocol: Literal["mmrec", "leave-one-out", "user-time", "global-time", "cold-items", "sparse"] = "mmrec"
    """how interactions are split: method.md section 6; the last two also change a split of the source's own"""
    cold_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """`cold-items`: items without any train interaction; half of them are the targets of valid, half those of test"""
    most_train: Positive = 5
    """`sparse`: train interactions that a user keeps at most, the latest where there are times"""
    memory_limit: str = "1GiB"
    """DuckDB spills to disk above this; its process takes some hundred MiB more, and reserves twice as much"""
    seed: int = 0
    """of splits that are random"""


class Items(Section):
    """Cleaning and composing text."""

    max_reject_share: Share = 0.01
    """a larger share of unreadable metadata lines fails the stage"""
    text: Annotated[list[TextField], Field(min_length=1)] = ["title", "brand", "categories", "description"]
    """fields that make the text, in this order; without categories the category probe judges text encoders too"""
    shared_above: Share = 0.1
    """a title or text of a larger share of the items is listed in run.json: it may be a placeholder"""

    @field_validator("text")
    @classmethod
    def _distinct(cls, fields: list[TextField]) -> list[TextField]:
        if len(set(fields)) < len(fields):
            raise ValueError("a field is named twice")
        return fields


class Images(Section):
    """Fetching and normalising images."""

    size: Positive = 256
    """shorter side after resizing, pixels; never enlarged"""
    quality: Annotated[int, Field(ge=1, le=95)] = 90
    """JPEG quality of the stored image"""
    timeout: Rate = 20.0
    """seconds for one try"""
    retries: Annotated[int, Field(ge=0)] = 3
    """tries after the first, for transient failures"""
    per_host: Positive = 8
    """simultaneous requests to one host"""
    rate: Rate = 50.0
    """requests a second to one host, at most"""
    give_up_after: Positive = 16
    """connections in a row that a host refuses before the rest of its images end as unreachable"""
    folder: str | None = None
    """folder, or zip, tar or tar.gz archive, that paths of images start from; by default the folder of the item file"""
    pattern: Annotated[list[Pattern], BeforeValidator(lambda raw: [raw] if isinstance(raw, str) else raw)] = []
    """path or address of an item's image, such as images/{item}.jpg, or several; tried before the item's own"""
    outside: bool = False
    """read images outside the folder too, where paths or links lead there; for data that you made yourself"""
    allow_file: bool = True
    """read images that are files of this machine; false refuses them all"""
    private_hosts: list[str] = []
    """hosts of private networks or of this machine, by name or number, that may be requested; others are refused"""
    mirrors: dict[str, Annotated[Address, Field(pattern=r"^https?://[^/]+$")]] = {}
    """host -> http(s)://host[:port] that is requested instead; the metadata's address is recorded"""
    placeholders: list[Annotated[str, Field(pattern=r"^([0-9a-f]{64}|[0-9a-f]{16})$")]] = []
    """images that say there is none: sha256 of their bytes or, for all that look alike, phash in hexadecimal"""
    shared_above: Positive = 10
    """an image of more items than this is listed in run.json: it may be a placeholder"""
    max_bytes: Positive = 20_000_000
    """a larger download is refused"""
    max_pixels: Positive = 100_000_000
    """a larger image is refused before decoding"""
    shard_rows: Positive = 16384
    """items a Parquet file: about 256 MB, at 16 kB an image"""
