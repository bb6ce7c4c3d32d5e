"""Section `league` of params.yaml."""

from __future__ import annotations

from pipeline.config.base import Name, Positive, Section


class League(Section):
    """Every model alike, over seeds and splits: `alignrec league`."""

    models: list[Name] = []
    """see pipeline/models/__init__.py; none: those of `benchmark.models`"""
    features: list[Name] = []
    """the set that is judged, then those that it is tested against; none: `train.features`, random and shuffled"""
    seeds: Positive = 5
    """runs of each model with the setting that valid has chosen, on each split"""
    splits: Positive = 3
    """the data's own, and others of the same interactions by other seeds, where a seed divides them"""
    workers: Positive | None = None
    """runs at a time, one thread each; null: as many as there are cores"""
