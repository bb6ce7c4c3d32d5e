"""Section `report` of params.yaml: contents of the HTML report."""

from typing import Annotated

from pydantic import Field

from alignrec.pipeline.runtime.section import Section


class Report(Section):
    gallery_items: Annotated[int, Field(gt=0, le=1000)] = 8
    """items shown with their neighbours"""
