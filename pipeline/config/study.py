"""Parameters of the stage `study`: the tables of the article beyond the benchmark."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.config.base import Name, Positive, Section, Share


class Mask(Section):
    """Mask modality (method.md section 5): one modality of some items is hidden, and AlignRec retrained."""

    ratios: Annotated[list[Share], Field(max_length=100)] = [0.5]
    """shares of items whose image (or text) is hidden; 0, the whole set, is always measured; empty: no training"""
    seeds: Positive = 3
    """trainings of AlignRec for each modality and ratio"""


class Study(Section):
    """What the article measures beyond models x feature sets; a part that is left empty takes no time."""

    mask: Mask = Mask()
    tail: bool = True
    """whether AlignRec is tested against every other model by popularity and by history; trains nothing"""
    arms: dict[Name, dict[str, Any]] = {}
    """arm -> keys of `pretrain` that differ: the encoder is trained so, and its features are judged and recommended
    with"""
    sweeps: dict[Name, dict[str, list[Any]] | str] = {}
    """sweep -> key (`train.lr`, `graph.k`, `pretrain.epochs`) -> values, or the name of a preset: `authors`; one key
    makes a curve, two a heat map, more a heat map a pair"""
    seeds: Positive = 5
    """trainings of AlignRec for each arm, and for each value of a sweep"""
    workers: Positive = 2
    """trainings at a time, one thread each"""

    @property
    def pretrains(self) -> bool:
        """Whether a part of the study trains encoders."""
        keys = (key for sweep in self.sweeps.values() if not isinstance(sweep, str) for key in sweep)
        return bool(self.arms) or any(key.startswith("pretrain.") for key in keys)
