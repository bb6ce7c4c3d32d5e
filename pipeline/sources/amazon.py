"""What the three versions of Amazon's review data share: parameters and licence."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from pipeline.config.base import Mirrors, Name
from pipeline.config.parameters import Licence
from pipeline.sources.base import Downloaded
from pipeline.sources.catalogue import ADDRESSES, Subset, addresses
from pipeline.sources.image_features import FEATURE, ROWS

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


class AmazonSource(Downloaded):
    """Raw Amazon review data as published; `category: Baby` fills in the publisher's addresses."""

    category: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = None
    """as the publisher spells it: fills in `reviews` and `metadata` where they are absent"""
    subset: Subset = "5-core"
    """reviews that `category` stands for: the published 5-core, or all, of which section `interactions` keeps a core"""
    reviews: Mirrors
    """reviews as JSON lines, or a CSV of ratings"""
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
        if "subset" in raw and "reviews" in raw:
            raise ValueError("subset: is of the addresses that `category` fills in, and `reviews` is given")
        subset: Subset = "all" if raw.get("subset") == "all" else "5-core"  # another one is refused below
        return addresses(raw["kind"], raw["category"], subset) | raw

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
        """Return role -> addresses: reviews, metadata, feature files, their rows."""
        features = {f"{FEATURE}{name}": mirrors for name, mirrors in self.features.items()}
        metadata = {"metadata": self.metadata} if self.metadata else {}
        rows = {ROWS: self.feature_rows} if self.feature_rows else {}
        return {"reviews": self.reviews} | metadata | features | rows
