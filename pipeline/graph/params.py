"""Section `graph` of params.yaml."""

from typing import Literal

from alignrec.pipeline.config.base import Positive, Section


class Graph(Section):
    """Item-item neighbours."""

    k: Positive = 10
    """neighbours an item, itself included"""
    index: Literal["auto", "exact", "ivf"] = "auto"
    """exact compares all pairs, in memory; ivf is faster, works on disk, and finds at least 95 in 100: run.json has
    its recall; auto: exact, and ivf above a size"""
    exact_up_to: Positive = 70_000
    """items; above it auto takes ivf"""
