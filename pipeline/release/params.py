"""Section `publish` of params.yaml."""

import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from alignrec.pipeline.config.base import Name, Section
from alignrec.pipeline.config.parameters import Shown


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Line = Annotated[str, Field(min_length=1, max_length=2000)]


class Publish(Section):
    """The release folder."""

    version: Annotated[str, Field(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")] = "0.1.0"
    """semantic version of the released data"""
    features: list[Name] = ["beit3", "beit3-image-masked", "beit3-text-masked", "minilm-cnn"]
    """feature sets to release; by default all but controls and imported files; third-party files only if named"""
    interactions: bool | None = None  # release interactions, users and split; by default as the source's licence allows
    users: Literal["none", "numbers", "names"] | None = None
    """what the release says of users: nothing; vectors by number, in place of names where interactions are released
    too; or names. By default names where interactions are released, else nothing: vectors give a user's items away"""
    texts: Shown | None = None
    """what `items.parquet` says of an item besides identifier, statuses and hashes. all: title, brand, categories,
    description, the text that was encoded, the image's address; titles: title and categories; none: nothing of these.
    By default what the source's licence allows: none for Amazon and MMRec folders, else all"""
    language: Annotated[list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]], BeforeValidator(_as_list)] | None = None
    """ISO 639 codes of the items' texts, such as en, for the card; one needs no brackets"""
    contact: Line | None = None
    """e-mail address or page for requests to remove something from the release; the card names it"""
    licence: Line | None = None
    """of the released data: a name of SPDX's list such as CC-BY-4.0, a web address, or a sentence; by default the
    source's"""
    creator: Annotated[list[Line], Field(min_length=1), BeforeValidator(_as_list)] | None = None
    """persons or organisations that made the release; a single one needs no brackets"""
    url: Annotated[str, Field(pattern=r"^https?://[^/\s]\S*$")] | None = None
    """web page where the release will be found"""
    date: Annotated[datetime.date, Field(strict=False)] | None = None  # day of publication, such as 2026-11-30
    cite: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None
    """how to cite the release, such as a BibTeX entry; by default one made of the keys above"""
