"""Section `report` of params.yaml."""

from pipeline.config.base import Positive, Rate, Section


class Report(Section):
    """The HTML page."""

    gallery_items: Positive = 8
    """items shown with their neighbours"""
    neighbours: Positive = 6
    """neighbours shown per item"""
    searchable: Positive = 3000
    """largest catalogue with all images and a search in the page"""
    mapped: Positive = 100_000
    """largest catalogue with a map of all items and their titles; beyond `searchable` without images"""
    watts: Rate = 30.0
    """power draw of the encoding machine, for the stated cost of a million items"""
    dollars: Rate = 0.1
    """price of an hour of it"""
