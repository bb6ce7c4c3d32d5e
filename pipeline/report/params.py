"""Section `report` of params.yaml: contents of the HTML report."""

from alignrec.pipeline.runtime.section import Positive, Section


class Report(Section):
    gallery_items: Positive = 8
    """items shown with their neighbours"""
