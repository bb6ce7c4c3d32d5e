"""Section `publish` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Name, Positive, Section


class Publish(Section):
    """The release folder."""

    version: Annotated[str, Field(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")] = "0.1.0"
    """semantic version of the released data"""
    features: list[Name] = ["beit3", "beit3-image-masked", "beit3-text-masked", "minilm-cnn"]
    """feature sets to release; where they are not given, all but the controls"""
    semantic_ids: list[Name] | None = None
    """methods whose semantic IDs of those sets are released; by default all that are not controls"""
    interactions: bool | None = None
    """whether the release carries interactions, users and the split; by default where the source's licence says so"""
    users: Literal["none", "numbers", "names"] | None = None
    """what the release says of users: nothing; vectors by number, in place of names where interactions are released
    too; or names. By default names where interactions are released, else nothing: vectors give a user's items away"""
    half: bool = False
    """also release each feature set as float16, half the bytes: folder features-half"""
    exact_up_to: Positive = 70_000
    """items up to which the index of the recommender's vectors is exact; beyond, an inverted file"""
