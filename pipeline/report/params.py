"""Section `report` of params.yaml."""

from pipeline.config.base import Positive, Rate, Section


class Report(Section):
    """The HTML page."""

    gallery_items: Positive = 8
    """items shown with their neighbours"""
    neighbours: Positive = 6
    """images beside each item"""
    searchable: Positive = 3000
    """largest catalogue whose images are all in the page, to be searched"""
    mapped: Positive = 100_000
    """largest catalogue with a map of all items and their titles; beyond `searchable` without images"""
    watts: Rate = 30.0
    """that the machine which encodes draws: stated, for what a million items would take"""
    dollars: Rate = 0.1
    """that an hour of it costs: likewise"""
