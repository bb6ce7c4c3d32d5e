"""Section `items` of params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from alignrec.pipeline.config.base import Section, Share

TextField = Literal["title", "brand", "categories", "description"]


class Items(Section):
    """Cleaning and composing text."""

    # a title or text of a larger share of the items is listed in run.json: it may be a placeholder
    shared_above: ClassVar[float] = 0.1

    max_reject_share: Share = 0.01  # a larger share of unreadable metadata lines fails the stage
    # fields that make the text, in this order; without categories the category probe judges text encoders too
    text: Annotated[list[TextField], Field(min_length=1)] = ["title", "brand", "categories", "description"]

    @field_validator("text")
    @classmethod
    def _distinct(cls, fields: list[TextField]) -> list[TextField]:
        if len(set(fields)) < len(fields):
            raise ValueError("a field is named twice")
        return fields
