"""What the three versions of Amazon's review data share: parameters and licence."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from pipeline.config.base import Mirrors, Name
from pipeline.config.parameters import Licence
from pipeline.sources.base import Downloaded
from pipeline.sources.catalogue import ADDRESSES, addresses
from pipeline.sources.image_features import FEATURE, ROWS
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
)


class AmazonSource(Downloaded):
    """Raw Amazon review data as published; `category: Baby` fills in the publisher's addresses."""

    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    """as the publisher spells it: fills in `reviews` and `metadata` where they are absent"""
    reviews: Mirrors | None = None
    """reviews as JSON lines, or a CSV of ratings"""
    split: PublishedSplit | None = None
    """a published split in place of `reviews`: its users, items and parts are kept, metadata is matched by ASIN"""
    metadata: Mirrors | None = None
    """meta_*.json.gz; null: reviews alone, so that items have neither text nor image"""
    features: dict[Name, Mirrors] = {}
    """feature set name -> image_features_*.b, by ASIN: a set of its own, and beside MiniLM if encode makes that; or a
    .npy file whose rows `feature_rows` identifies"""
    feature_rows: Mirrors | None = None
    """mapping file of the .npy files, such as MMRec's i_id_mapping.csv: a column of ASINs, one of rows 0, 1, 2, ..."""
    licence: ClassVar[Licence] = TERMS

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, raw: Any) -> Any:
        known = isinstance(raw, dict) and raw.get("kind") in ADDRESSES and isinstance(raw.get("category"), str)
        if not known:
            return raw
        unread = {"reviews"} if raw.get("split") else set()
        found = addresses(raw["kind"], raw["category"])
        return {role: found[role] for role in found if role not in unread} | raw

    @model_validator(mode="after")
    def _one_source_of_interactions(self) -> Self:
        if self.split and self.reviews:
            raise ValueError("reviews: are not read where `split` gives the interactions; leave one of the two out")
        if not self.split and not self.reviews:
            raise ValueError("reviews: is required, as an address, by `category`, or `split` in its place")
        if self.split and not self.metadata:
            raise ValueError("metadata: is required beside `split`, which has neither texts nor images")
        return self

    @model_validator(mode="after")
    def _by_asin(self) -> Self:
        arrays = [name for name, mirrors in self.features.items() if mirrors[0].endswith(".npy")]
        for name, mirrors in self.features.items():
            ending = (".npy",) if name in arrays else (".b", ".b.gz")
            if odd := [a for a in mirrors if not a.endswith(ending)]:
                raise ValueError(f"features.{name}: {odd[0]} ends in neither .b (records of ASIN and float32) nor .npy")
        if arrays and self.feature_rows is None:
            raise ValueError(f"features.{arrays[0]}: the rows of a .npy file need feature_rows, a mapping file by ASIN")
        if self.feature_rows is not None and not arrays:
            raise ValueError("feature_rows: is for .npy files, and features names none")
        return self

    def files(self) -> dict[str, list[str]]:
        """Return role -> addresses: reviews or the files of the split, metadata, feature files, their rows."""
        features = {f"{FEATURE}{name}": mirrors for name, mirrors in self.features.items()}
        metadata = {"metadata": self.metadata} if self.metadata else {}
        rows = {ROWS: self.feature_rows} if self.feature_rows else {}
        interactions = self.split.files() if self.split else {"reviews": self.reviews or []}
        return interactions | metadata | features | rows

    @property
    def has_split(self) -> bool:
        """Whether the interactions are those of a published split."""
        return self.split is not None
