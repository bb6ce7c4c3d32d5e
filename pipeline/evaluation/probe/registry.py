"""Registry of probes. To add one, define a `Probe` in its own file and list it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from alignrec.pipeline.runtime.registry import Registry

if TYPE_CHECKING:
    from alignrec.pipeline.evaluation.probe.questions import Questions


@dataclass(frozen=True)
class Data:
    """Input of a probe: one dataset with I items."""

    interactions: pa.Table  # schema INTERACTIONS
    items: int  # I

    def columns(self, *names: str) -> list[np.ndarray]:
        """Return columns of the interactions."""
        return [self.interactions[name].to_numpy() for name in names]


class Task(Protocol):
    """A probe's evaluation of one feature set at a time, over n cases such as users."""

    def answer(self, features: np.ndarray) -> np.ndarray:
        """Return the figure of each case for features [I, F]: float64 [n], or [n, D] of D draws."""

    def summary(self, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Summarise the answers of several feature sets, by name.

        Returns JSON: `{<unit of a case>: n, "chance": {figure: ...}, <feature set>: {figure: mean,
        figure_se: error}}`.
        """


@dataclass(frozen=True)
class Probe:
    """A probe: its questions about a dataset, and the texts of its report."""

    # returns questions, a task, or the reason why it cannot run
    ask: Callable[[Data], Questions | Task | str]
    name: str  # display name
    figure: str  # headline figure, such as accuracy or hit@20
    question: str  # one phrase
    note: str  # caption of its figures; {n} is the number of groups or cases
    # Whether the task answers in several draws [n, D], each hiding some items. Tests then resample
    # draws as well as cases.
    drawn: bool = False

    @property
    def title(self) -> str:
        return self.name[:1].upper() + self.name[1:]

    @property
    def measure(self) -> str:
        """The figure without its cutoff."""
        return self.figure.partition("@")[0]


def _fault_of(part: object) -> str:
    if not isinstance(part, Probe):
        return "no Probe"
    return "" if callable(part.ask) else "its `ask` is no function"


PROBES: Registry[Probe] = Registry(
    "probes",
    {
        "zero_shot": "alignrec.pipeline.evaluation.probe.behaviour:ZERO_SHOT",
        "item_cf": "alignrec.pipeline.evaluation.probe.behaviour:ITEM_CF",
        "content_knn": "alignrec.pipeline.evaluation.probe.behaviour:CONTENT_KNN",
        "cold_items": "alignrec.pipeline.evaluation.probe.cold_items:COLD_ITEMS",
    },
    _fault_of,
)  # key in probes.json -> probe, in the order of the report
