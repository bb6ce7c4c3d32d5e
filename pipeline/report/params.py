"""Section `report` of params.yaml."""

from alignrec.pipeline.config.base import Positive, Section


class Report(Section):
    """The HTML page."""

    gallery_items: Positive = 8
    """items shown with their neighbours"""
