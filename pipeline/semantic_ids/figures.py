"""The schema of the figures in codes.json, closed and bounded: a release's file is untrusted, and pages show it."""

from typing import Annotated, Any

from pydantic import Field

from pipeline.config.base import Section

Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
Known = Number | None
"""null: not known"""


class Collisions(Section):
    """Shares of items that share all codes with another."""

    before: Number
    after: Number
    head: Known = None
    """before the policy, in the third of the items with the most train interactions"""
    middle: Known = None
    tail: Known = None


class Level(Section):
    """One level's codes by themselves."""

    used: Number
    perplexity: Number
    gini: Number
    neighbours: Known
    neighbours_chance: Known


class Prefix(Section):
    """The first codes, so many."""

    length: Count
    distinct: Count
    bits: Number
    most_bits: Number
    neighbours: Known
    neighbours_chance: Known
    co_purchase: Known
    co_purchase_chance: Known
    category: Known
    category_chance: Known


class Skipped(Section):
    """Why there are no figures."""

    skipped: Text


class Probed(Section):
    """A probe with reconstructed vectors beside the original ones."""

    measure: Text
    users: Count | None = None
    items: Count | None = None
    original: Number
    reconstructed: Number
    chance: Number
    difference: Number
    low: Number
    high: Number
    p_holm: Number


class Reconstruction(Section):
    """What the codes' vectors are worth."""

    cosine: Number | None = None
    zero_shot: Probed | Skipped = Skipped(skipped="")
    item_cf: Probed | Skipped = Skipped(skipped="")


class Quality(Section):
    """See quality.py."""

    control: bool
    items: Count
    without_content: Count
    collisions: Collisions
    levels: Annotated[list[Level], Field(min_length=1, max_length=64)]
    prefixes: Annotated[list[Prefix], Field(min_length=1, max_length=64)]
    reconstruction: Reconstruction | Skipped


def bounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures as they are; there may be none. pydantic.ValidationError for what no judge writes."""
    if figures:
        Quality.model_validate(figures)
    return figures
