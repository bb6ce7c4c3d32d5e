"""Where a dataset comes from: `sources` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Mirrors, Name, Positive, Section
from pipeline.config.catalogue import ADDRESSES, addresses


class SampleSource(Section):
    """The embedded sticker shop: OpenMoji drawings, Unicode names, synthetic shoppers."""

    kind: Literal["sample"]
    users: Positive = 3600
    """shoppers before filtering"""
    items: Positive = 1600
    """stickers before filtering; the first in Unicode order, no skin tones"""
    seed: int = 0
    """another seed is another shop with the same stickers"""


class AmazonSource(Section):
    """Raw Amazon review data as published; `category: Baby` stands for the publisher's addresses of that category."""

    kind: Literal["amazon2014", "amazon2018", "amazon2023"]
    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    """as the publisher spells it: fills in what of `reviews` and `metadata` is not given"""
    reviews: Mirrors
    """reviews as JSON lines, or a CSV of ratings"""
    metadata: Mirrors
    """meta_*.json.gz"""
    features: dict[Name, Mirrors] = {}
    """feature set name -> image_features_*.b, by ASIN: a set of its own, and beside MiniLM if encode makes that"""
    sha256: dict[str, str] = {}
    """reviews, metadata, feature:<name> -> hex digest that the file must have"""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        known = isinstance(given, dict) and given.get("kind") in ADDRESSES and isinstance(given.get("category"), str)
        return addresses(given["kind"], given["category"]) | given if known else given

    @model_validator(mode="after")
    def _by_asin(self) -> AmazonSource:
        for name, mirrors in self.features.items():
            if odd := [a for a in mirrors if not a.endswith((".b", ".b.gz"))]:
                raise ValueError(f"features.{name}: {odd[0]} does not end in .b; expected records of ASIN and float32")
        return self


class MmrecSource(Section):
    """A folder in MMRec's format: the split is imported as it is, features come ready."""

    kind: Literal["mmrec"]
    interactions: Mirrors
    """*.inter or *.inter.gz: tab separated userID itemID rating timestamp x_label"""
    items: Mirrors | None = None
    """JSON lines or CSV with itemID and any of asin, title, brand, categories, description, imUrl"""
    features: dict[Name, Mirrors] = {}
    """feature set name -> .npy file, row i = itemID i"""
    timestamps: Literal["unix", "order", "none"] = "none"
    """what the timestamp column means: seconds, the position in the user's sequence, or nothing"""
    sha256: dict[str, str] = {}
    """interactions, metadata, feature:<name> -> hex digest that the file must have"""


class TabularSource(Section):
    """Two files of your own, as Parquet, CSV or JSON lines."""

    kind: Literal["tabular"]
    interactions: Mirrors
    """a row an interaction: user, item, and if there are, rating and timestamp (seconds, or a date)"""
    items: Mirrors | None = None
    """a row an item: item, and any of title, brand, categories, description, image_urls; | parts several in one cell"""
    columns: dict[
        Literal["user", "item", "rating", "timestamp", "title", "brand", "categories", "description", "image_urls"], str
    ] = {}
    """our name -> the files' name, where they differ"""
    sha256: dict[Name, str] = {}
    """interactions, metadata -> hex digest that the file must have"""


Source = Annotated[SampleSource | AmazonSource | MmrecSource | TabularSource, Field(discriminator="kind")]
KINDS = ("sample", "amazon2014", "amazon2018", "amazon2023", "mmrec", "tabular")
