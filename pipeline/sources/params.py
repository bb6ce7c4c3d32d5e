"""Section `download` of params.yaml."""

from typing import Annotated, ClassVar

from pydantic import Field

from alignrec.pipeline.config.base import Rate, Section


class Download(Section):
    """Fetching raw files."""

    speed: ClassVar[frozenset[str]] = frozenset({"retries", "timeout"})

    timeout: Rate = 30.0
    """seconds without a byte before a try is given up"""
    retries: Annotated[int, Field(ge=0)] = 5
    """tries after the first, with exponential back-off"""
