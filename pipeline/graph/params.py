"""Section `graph` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pipeline.config.base import Positive, Section


class Graph(Section):
    """Item-item neighbours."""

    k: Positive = 10
    """neighbours an item, itself included"""
    index: Literal["auto", "exact", "ivf", "hnsw"] = "auto"
    """exact compares all pairs; ivf and hnsw are faster and miss some: run.json has their recall; auto: exact, and
    ivf above a size"""
    exact_up_to: Positive = 70_000
    """items; above it auto takes ivf"""
