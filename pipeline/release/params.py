"""Section `publish` of params.yaml and the licence of the source: contents of a release."""

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.section import WRAPPED, Name, Section
from alignrec.pipeline.runtime.source import Licence, Shown

Line = Annotated[str, Field(min_length=1, max_length=2000)]
LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
VectorType = Literal["float32", "float16"]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")]
FLOAT32 = ("vectors", "float32")


class Publish(Section):
    version: Version = "0.1.0"
    """semantic version of the released data"""
    features: list[Name] = ["beit3", "beit3-image-masked", "beit3-text-masked", "minilm-cnn"]
    """feature sets to release, the one to be read first leading; by default all but controls and
    imported files; third-party files only if named"""
    interactions: bool | None = None
    """release interactions, users and split; by default as the source's licence allows"""
    users: Literal["none", "numbers", "names"] | None = None
    """data of users: none; numbers: vectors, and interactions if released, without names; names.
    By default names if interactions are released, otherwise none, because a vector reveals a
    user's items"""
    texts: Shown | None = None
    """texts in `items.parquet`. all: title, brand, categories, description, encoded text, image
    URL; titles: title and categories; none. By default as the source's licence allows: none for
    Amazon and MMRec folders, otherwise all"""
    vectors: VectorType = "float32"
    """number type of released feature sets. float16 halves their bytes"""
    language: Annotated[list[LanguageCode], WRAPPED] | None = None
    """ISO 639 codes of the items' texts, such as en; a single one needs no brackets"""
    contact: Line | None = None
    """e-mail address or page for removal requests, shown on the card"""
    licence: Line | None = None
    """licence of the data: SPDX identifier, URL or sentence; by default the source's"""
    creator: Annotated[list[Line], Field(min_length=1), WRAPPED] | None = None
    """people or organisations; a single one needs no brackets"""
    url: Annotated[str, Field(pattern=r"^https?://[^/\s]\S*$")] | None = None
    """web page of the release"""
    date: Annotated[datetime.date, Field(strict=False)] | None = None
    """day of publication, such as 2026-11-30"""
    cite: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None
    """how to cite the release, such as a BibTeX entry; by default one made of the keys above"""

    def facts(self) -> dict[str, Any]:
        # records of float32 are as they were before the key existed
        return {key: value for key, value in super().facts().items() if (key, value) != FLOAT32}


def resolve_settings(publish: Publish, licence: Licence) -> Publish:
    """Replace nulls in section `publish` with what the source's licence allows."""
    interactions = publish.interactions
    if interactions is None:
        interactions = licence.interactions
    users = publish.users or ("names" if interactions else "none")
    if interactions and users == "none":
        raise UserError(
            "publish.users is none, but interactions are released; set it to numbers or names"
        )
    texts = publish.texts or licence.texts
    return publish.model_copy(update={"interactions": interactions, "users": users, "texts": texts})
