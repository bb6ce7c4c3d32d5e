"""Section `report` of params.yaml."""

from pipeline.config.base import Positive, Rate, Section


class Report(Section):
    """The HTML page."""

    gallery_items: Positive = 8
    """items shown with their neighbours"""
    neighbours: Positive = 6
    """images beside each item"""
    searchable: Positive = 3000
    """up to so many items the page has every image, and can search them all"""
    mapped: Positive = 100_000
    """up to so many items the page has a map of all, with their titles; beyond `searchable` without images"""
    watts: Rate = 30.0
    """that the machine which encodes draws: stated, for what a million items would take"""
    dollars: Rate = 0.1
    """that an hour of it costs: likewise"""
