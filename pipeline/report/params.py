"""Section `report` of params.yaml."""

from alignrec.pipeline.harness.config import Positive, Section


class Report(Section):
    """The HTML page."""

    gallery_items: Positive = 8
    """items shown with their neighbours"""
