"""Section `graph` of params.yaml."""

from typing import Literal

from alignrec.pipeline.harness.config import Positive, Section


class Graph(Section):
    """Section `graph`: search for the nearest neighbours of items."""

    k: Positive = 10
    """neighbours per item, including itself"""
    index: Literal["auto", "exact", "ivf"] = "auto"
    """exact: all pairs, in memory; ivf: faster, on disk, recall >= 0.95; auto: by size"""
    exact_up_to: Positive = 70_000
    """number of items above which `auto` chooses ivf"""
