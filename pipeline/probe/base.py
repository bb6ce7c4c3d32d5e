"""The interface of a probe: its questions about a dataset, and the texts that report its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from alignrec.pipeline.probe.questions import Questions


Refit = Callable[[np.ndarray], np.ndarray]
"""cold items -> the vectors of all, float32 [I, F], made without the interactions of the cold ones"""


@dataclass(frozen=True)
class Data:
    """What probes read: one dataset with I items."""

    interactions: pa.Table  # schema INTERACTIONS
    items: int  # I
    refits: Mapping[str, Refit | None] = field(default_factory=dict)
    """feature set that learned from train interactions -> what makes it without those of some; None: it cannot be"""


class Task(Protocol):
    """A probe that evaluates each feature set by itself, over n cases."""

    def answer(self, features: np.ndarray, refit: Refit | None = None) -> np.ndarray:
        """Return the figure of each case, [n], or of a probe that is `drawn` [n, D], of features float32 [I, F]."""

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return `{<what a case is>: n, "chance": {figure: ...}, <feature set>: {figure: mean, figure_se: error}}`."""


@dataclass(frozen=True)
class Probe:
    """An entry of the registry."""

    ask: Callable[[Data], Questions | Task | str]  # returns the questions to every feature set, or why there are none
    name: str  # in texts
    figure: str  # its headline figure: accuracy, or with its cutoff hit@20
    question: str  # what it asks, in a phrase
    note: str  # what its figures need besides; {n} is the number of groups or cases
    leak: str = ""  # why its figures flatter a set that learned from train interactions; empty where they do not
    drawn: bool = False
    """whether its task answers in several draws, [n, D], which hide items: tests resample draws as they do cases, and a
    set that learned from interactions is refitted without those items"""

    @property
    def title(self) -> str:
        return self.name[:1].upper() + self.name[1:]

    @property
    def measure(self) -> str:
        """The figure without its cutoff."""
        return self.figure.partition("@")[0]
