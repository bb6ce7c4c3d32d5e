"""Section `interactions` of params.yaml. Section `items` of params.yaml."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from alignrec.pipeline.runtime.section import Positive, Runs, Section, Seed, Share


class Interactions(Section):
    """Section `interactions`: filtering, numbering and splitting."""

    # DuckDB spills to disk above this; the process uses a few hundred MiB more, and reserves twice
    # as much
    memory_limit: ClassVar[str] = "1500MiB"

    min_rating: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """ratings below this are dropped before the k-core, to use explicit ratings as implicit
    feedback; null keeps all"""
    user_core: Positive = 5
    """users with fewer interactions are dropped, repeatedly, as dropping items removes
    interactions too"""
    item_core: Positive = 5
    """items with fewer interactions are dropped too"""
    protocol: Literal[
        "mmrec", "leave-one-out", "user-time", "global-time", "cold-items", "sparse"
    ] = "mmrec"
    """split protocol, see method.md section 6; the last two also replace a source's own split"""
    cold_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """`cold-items`: share of items without train interactions, half of them targets of valid,
    half of test"""
    most_train: Positive = 5
    """`sparse`: maximum train interactions kept per user; a single draw keeps the latest if
    there are timestamps"""
    draws: Runs = 5
    """`cold-items` and `sparse`: number of splits, with different cold items or train interactions;
    the benchmark's runs cycle through them, all other stages use the first"""
    seed: Seed = 0
    """seed of random splits"""


TextField = Literal["title", "brand", "categories", "description"]


class Items(Section):
    """Section `items`: cleaning and composition of text."""

    # titles and texts of a larger share of items are listed in run.json as possible placeholders
    shared_above: ClassVar[float] = 0.1

    max_reject_share: Share = 0.01
    """maximum share of unreadable metadata lines, above which the stage fails"""
    text: Annotated[list[TextField], Field(min_length=1)] = [
        "title",
        "brand",
        "categories",
        "description",
    ]
    """fields that compose the text, in order"""
    all: bool = False
    """also keep the items of the item file that `interactions` leaves out, such as those with too
    few interactions: they get features, neighbours and a place in the release, and are neither
    trained on nor judged"""

    @field_validator("text")
    @classmethod
    def _distinct(cls, fields: list[TextField]) -> list[TextField]:
        if len(set(fields)) < len(fields):
            raise ValueError("a field is named twice")
        return fields

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        # records without further items are as they were before the key existed
        return {key: value for key, value in facts.items() if (key, value) != ("all", False)}
