"""Parameters and licence that the three versions of Amazon's review data share."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from pipeline.config.base import Mirrors
from pipeline.config.parameters import Licence
from pipeline.sources.catalogue import ADDRESSES, Subset, addresses
from pipeline.sources.feature_files import WithFeatures
from pipeline.sources.published import PublishedSplit

HEADER = {
    "license": "other",
    "license_name": "amazon-review-data",
    "license_link": "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
}


TERMS = Licence(
    HEADER,
    "Made from the Amazon review data collected by Julian McAuley's group at UC San Diego, who ask that their papers "
    "be cited (2014: McAuley et al., *Image-based recommendations on styles and substitutes*; 2018: Ni et al., "
    "*Justifying recommendations using distantly-labeled reviews and fine-grained aspects*). No licence is stated for "
    "the data; product texts and images belong to their owners. Use the release for research, and mind the terms of "
    "the source.",
    texts="none",
)


class AmazonSource(WithFeatures):
    """Raw Amazon review data as published; `category: Baby` fills in the publisher's addresses."""

    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    """as the publisher spells it: fills in `reviews` and `metadata` where they are absent"""
    subset: Subset = "5-core"
    """reviews that `category` fills in: the published 5-core, or all reviews, from which `interactions` keeps a core"""
    reviews: Mirrors | None = None
    """reviews as JSON lines, or a CSV of ratings"""
    split: PublishedSplit | None = None
    """a published split in place of `reviews`: its users, items and parts are kept, metadata is matched by ASIN"""
    metadata: Mirrors | None = None
    """meta_*.json.gz; null: only reviews, so that items have neither text nor image"""
    licence: ClassVar[Licence] = TERMS

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        known = isinstance(raw, dict) and raw.get("kind") in ADDRESSES and isinstance(raw.get("category"), str)
        if not known:
            return raw
        if "subset" in raw and ("reviews" in raw or raw.get("split")):
            raise ValueError("subset: applies to what `category` fills in, not to `reviews` or `split`")
        subset: Subset = "all" if raw.get("subset") == "all" else "5-core"  # another one is refused below
        unread = {"reviews"} if raw.get("split") else set()
        found = addresses(raw["kind"], raw["category"], subset)
        return {role: found[role] for role in found if role not in unread} | raw

    @model_validator(mode="after")
    def _one_source_of_interactions(self) -> Self:
        if self.split and self.reviews:
            raise ValueError("reviews: cannot be combined with `split`, which gives the interactions")
        if not self.split and not self.reviews:
            raise ValueError("reviews: is required; give an address, `category`, or `split`")
        if self.split and not self.metadata:
            raise ValueError("metadata: is required with `split`, which has neither texts nor images")
        if not self.split and (name := self.without_order()):  # items are numbered here, in no order of others
            raise ValueError(f"features.{name}: its rows name no items; give feature_rows, a mapping file by ASIN")
        return self

    def files(self) -> dict[str, list[str]]:
        metadata = {"metadata": self.metadata} if self.metadata else {}
        interactions = self.split.files() if self.split else {"reviews": self.reviews or []}
        return interactions | metadata | self.feature_files()

    @property
    def has_split(self) -> bool:
        return self.split is not None
