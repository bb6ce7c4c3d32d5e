"""Section `download` of params.yaml."""

from typing import Annotated

from pydantic import Field

from pipeline.config.base import Rate, Section


class Download(Section):
    """Fetching raw files."""

    timeout: Rate = 30.0
    """seconds without a byte before a try is given up"""
    retries: Annotated[int, Field(ge=0)] = 5
    """tries after the first, with exponential back-off"""
