"""Settings to try: a grid, Halton points; valid chooses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.benchmark.params import Range
from pipeline.benchmark.runs import NO_FEATURES
from pipeline.experiment.cell import RECALL

if TYPE_CHECKING:
    from pipeline.experiment.store import Record

DIGITS = 3  # significant digits of a Halton point's value, so that tables show it in full
Value = int | float
Setting = dict[str, Value]


class Contender(NamedTuple):
    """A model, and a feature set or NO_FEATURES."""

    model: str
    features: str

    @property
    def name(self) -> str:
        return self.model if self.features == NO_FEATURES else f"{self.model} on {self.features}"


def grid(values: Mapping[str, Sequence[Value]]) -> list[Setting]:
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


def halton(ranges: Mapping[str, Range], n: int, seed: int) -> list[Setting]:
    """Return n points of a scrambled Halton sequence; a larger n begins with the same points."""
    from scipy.stats import qmc  # takes half a second to load

    points = qmc.Halton(len(ranges), seed=np.random.default_rng(seed)).random(n)  # [n, ranges], in [0, 1)
    return [
        {name: _value(values, u) for (name, values), u in zip(ranges.items(), point, strict=True)} for point in points
    ]


def _value(values: Range, u: float) -> Value:
    """Return the value at share u of a range."""
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    low, high = values.low, values.high + whole
    value = low * math.exp(u * math.log(high / low)) if values.log else low + u * (high - low)
    if whole:
        return min(math.floor(value), values.high)
    return min(max(float(f"{value:.{DIGITS}g}"), values.low), values.high)


class Tried(NamedTuple):
    """A setting and the outcome of its training."""

    number: int  # from 0
    setting: Setting
    state: str  # complete or failed
    epochs: int
    valid: float | None = None  # Recall@20; None if it failed
    reason: str = ""

    @classmethod
    def of(cls, number: int, setting: Setting, record: Record) -> Tried:
        values = record.values
        return cls(number, setting, values["state"], values["epochs"], record.best.get(RECALL), values["reason"])


def best(tried: Sequence[Tried]) -> Tried | None:
    """Return the first complete setting of highest valid Recall@20; None if all failed."""
    complete = [one for one in tried if one.state == "complete"]
    return max(complete, key=lambda one: one.valid or 0.0, default=None)
