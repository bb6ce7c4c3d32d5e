"""Section `report` of params.yaml."""

from alignrec.pipeline.harness.config import Positive, Section


class Report(Section):
    """Section `report`: contents of the HTML report."""

    gallery_items: Positive = 8
    """items shown with their neighbours"""
