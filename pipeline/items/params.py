"""Section `items` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from alignrec.pipeline.harness.config import Section, Share

TextField = Literal["title", "brand", "categories", "description"]


class Items(Section):
    """Section `items`: cleaning and composition of text."""

    # titles and texts of a larger share of items are listed in run.json as possible placeholders
    shared_above: ClassVar[float] = 0.1

    max_reject_share: Share = 0.01
    """maximum share of unreadable metadata lines, above which the stage fails"""
    text: Annotated[list[TextField], Field(min_length=1)] = ["title", "brand", "categories", "description"]
    """fields that compose the text, in order"""

    @field_validator("text")
    @classmethod
    def _distinct(cls, fields: list[TextField]) -> list[TextField]:
        if len(set(fields)) < len(fields):
            raise ValueError("a field is named twice")
        return fields
