"""One training as a value: all that shapes its result, the key that is the hash of it, and what it leaves.

Letters: N test users, K cutoff.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline.config.base import Section
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import Result
from pipeline.ops.checkpoint import Checkpoint
from pipeline.run import Run

Opens = Literal["valid", "test", "rankings"]
"""what is kept: figures of valid, of test too, or also the recommendations for test users"""
Watch = Callable[[dict[str, Any]], object]  # called with each finished epoch's line of the history
RECALL = f"valid_recall@{CUTOFF}"  # figure of a line of the history


class Trained(NamedTuple):
    """A model as it was at its best valid epoch."""

    history: Sequence[dict[str, Any]]  # one object an epoch: epoch, loss, valid metrics; empty of what nothing trains
    best_epoch: int | None
    judge: Callable[[Protocol, Sequence[int]], Result]  # opens test under a protocol, at cutoffs
    fitted: Any = None  # what the loop returned
    observed: Sequence[dict[str, Any]] = ()
    """what else was measured at the end of each epoch, JSON, which the record keeps"""


class Data(ABC):
    """What a training reads. A value that is pickled for the processes of a pool."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Return the files that are read, in a defined order; UserError names one that is missing."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what else shapes the data, JSON."""

    @abstractmethod
    def code(self, model: str) -> tuple[list[Path], list[str]]:
        """Return the source files of other packages, and the modules of ours, that train a model."""

    @abstractmethod
    def train(self, cell: Cell, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> Trained:
        """Train the cell's model, test is not looked at; UserError for a wrong input, or a loss that diverges."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One training. Cells of equal keys leave equal bytes, whoever names them.

    A split of another seed is another layout of the data: its files are hashed as all others.
    """

    data: Data
    model: str
    settings: Section  # all of the model's, of its class Params
    protocol: Protocol  # by which the epoch is chosen; each of its variants judges
    seed: int  # of initial values, order and negatives; made from names, see pipeline.seeds
    ks: tuple[int, ...]  # cutoffs
    opens: Opens = "rankings"

    @property
    def facts(self) -> dict[str, Any]:
        """All that shapes the result, but for the bytes that are read, the code and the versions."""
        return self._training | {"ks": self.ks, "opens": self.opens}

    @cached_property
    def key(self) -> str:
        """The sha256 of all that shapes the result."""
        return self._hash(self.facts)

    @cached_property
    def training(self) -> str:
        """As `key`, equal for cells that differ by what they open alone: they share a checkpoint."""
        return self._hash(self._training)

    @property
    def _training(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "data": self.data.facts(),
            "settings": self.settings.model_dump(mode="json"),
            "protocol": self.protocol.fingerprint,
            "seed": self.seed,
        }

    def _hash(self, facts: dict[str, Any]) -> str:
        sources, modules = self.data.code(self.model)
        return Run.key([*self.data.files(), *sources], facts, [__name__, *modules])


class Outcome(NamedTuple):
    """The record of one training, and its recommendations for test users."""

    values: dict[str, Any]
    """JSON: state (complete or failed), reason, epochs, best_epoch, best (that epoch's line of the history),
    curve (best valid Recall@20 up to each epoch), observed where something was, and judged, an object a protocol:
    protocol, fingerprint, metrics, a part -> "recall@20" -> mean over users"""
    rankings: dict[str, pa.Table]  # suffix of the protocol -> table rankings(K)


def outcome(cell: Cell, tolerant: bool = False) -> Outcome:
    """Train a cell and open what it opens.

    Args:
        tolerant: whether a training that fails is an outcome, with the reason; else it raises.
    """
    curve: list[float] = []

    def watch(line: dict[str, Any]) -> None:
        curve.append(max([line[RECALL], *curve[-1:]]))

    try:
        trained = cell.data.train(cell, watch)
        results = opened(cell, trained) if cell.opens != "valid" else []
    except UserError as e:
        if not tolerant:
            raise
        return Outcome(_values("failed", len(curve), curve, reason=str(e)), {})
    best = {} if trained.best_epoch is None else trained.history[trained.best_epoch]
    curve = np.maximum.accumulate([line[RECALL] for line in trained.history]).tolist()
    values = _values("complete", len(trained.history), curve, trained.best_epoch, best)
    if trained.observed:
        values["observed"] = list(trained.observed)
    values["judged"] = [result.label | {"metrics": _means(result)} for result in results]
    kept = zip(cell.protocol.variants, results, strict=True) if cell.opens == "rankings" else ()
    return Outcome(values, {protocol.suffix: _ranked(result) for protocol, result in kept})


def opened(cell: Cell, trained: Trained) -> list[Result]:
    return [trained.judge(protocol, cell.ks) for protocol in cell.protocol.variants]


def _values(
    state: str, epochs: int, curve: Sequence[float], best_epoch: int | None = None, best: Any = None, reason: str = ""
) -> dict[str, Any]:
    run = {"epochs": epochs, "best_epoch": best_epoch, "best": best or {}, "curve": list(curve)}
    return {"state": state, "reason": reason, **run, "judged": []}


def _ranked(result: Result) -> pa.Table:
    top = result.test.top
    lists = pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), type=schemas.ranking(top.shape[1]))
    return pa.table({"user_id": result.test.users, "items": lists})


def _means(result: Result) -> dict[str, dict[str, float]]:
    return {
        part: {f"{metric}@{k}": value for (metric, k), value in evaluation.mean.items()}
        for part, evaluation in (("valid", result.valid), ("test", result.test))
    }
