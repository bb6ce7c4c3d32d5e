"""What the three versions of Amazon's review data share: addresses and sizes of categories, parameters, licence.

Addresses: jmcauley.ucsd.edu/data/amazon (2014), nijianmo.github.io/amazon (2018), amazon-reviews-2023.github.io (2023).
categories.json says where published sizes were read.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import orjson
from pydantic import Field, model_validator

from pipeline.config.base import Mirrors
from pipeline.config.parameters import Licence
from pipeline.sources.feature_files import WithFeatures
from pipeline.sources.mmrec import PublishedSplit

Subset = Literal["5-core", "all"]
"""reviews: the published 5-core, or all"""

_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_LAB = "https://mcauleylab.ucsd.edu/public_datasets/data"
_REPOSITORY = "https://datarepo.eng.ucsd.edu/mcauley_group/data"
_EARLIER = "https://jmcauley.ucsd.edu/data"


# version -> mirrors in the order in which they are tried, and paths; {} is the category as the publisher spells it
_MIRRORS = {
    "amazon2014": [f"{_SNAP}/{{}}", f"{_LAB}/amazon/categoryFiles/{{}}"],
    "amazon2018": [f"{base}/amazon_v2/{{}}" for base in (_LAB, _REPOSITORY, _EARLIER)],
    "amazon2023": [f"{_LAB}/amazon_2023/{{}}.gz", f"{_REPOSITORY}/amazon_2023/{{}}.gz"],
}
_PATHS = {
    "amazon2014": ("reviews_{}_5.json.gz", "reviews_{}.json.gz", "meta_{}.json.gz"),
    "amazon2018": ("categoryFilesSmall/{}_5.json.gz", "categoryFiles/{}.json.gz", "metaFiles2/meta_{}.json.gz"),
    "amazon2023": (
        *("benchmark/5core/rating_only/{}.csv", "benchmark/0core/rating_only/{}.csv"),
        "raw/meta_categories/meta_{}.jsonl",
    ),
}
ADDRESSES: dict[str, dict[str, list[str]]] = {
    version: {
        role: [mirror.format(path) for mirror in _MIRRORS[version]]
        for role, path in zip(("5-core", "all", "metadata"), paths, strict=True)
    }
    for version, paths in _PATHS.items()
}
"""version -> role or subset -> addresses"""
KIND = "amazon{}"  # of a source, given the year


def addresses(version: str, category: str, subset: Subset = "5-core") -> dict[str, list[str]]:
    roles = {"reviews": subset, "metadata": "metadata"}
    return {role: [one.format(category) for one in ADDRESSES[version][key]] for role, key in roles.items()}


class Published(NamedTuple):
    """Size of a category after the 5-core."""

    users: int
    items: int
    interactions: int

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


@cache
def vintages() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = orjson.loads(Path(__file__).with_name("categories.json").read_bytes())
    return read


SIZES: dict[tuple[str, str], Published] = {
    (KIND.format("2014"), name): Published(*(int(counts[k].replace(",", "")) for k in ("users", "items", "reviews")))
    for name, counts in vintages()["2014"]["categories"].items()
    if counts
}  # (version, category) -> size after the 5-core, as published


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
