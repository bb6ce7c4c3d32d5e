"""One training as a value: its inputs, the hash of them as its key, and its outcome.

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

Opens = Literal["valid", "test", "rankings"]  # each keeps more: valid figures, test figures, recommendations of test
Watch = Callable[[dict[str, Any]], object]  # called with each finished epoch's line of the history
RECALL = f"valid_recall@{CUTOFF}"


class Trained(NamedTuple):
    """A model at its best valid epoch."""

    history: Sequence[dict[str, Any]]  # per epoch: epoch, loss, valid metrics; empty for untrained models
    best_epoch: int | None
    judge: Callable[[Protocol, Sequence[int]], Result]  # opens test under a protocol, at cutoffs
    fitted: Any = None  # result of the loop
    observed: Sequence[dict[str, Any]] = ()  # further measurements per epoch, JSON, which the record keeps


class Data(ABC):
    """Input of a training; pickled for worker processes."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Return the files to read, in a defined order; UserError names a missing one."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return all else that determines the data, JSON."""

    @abstractmethod
    def code(self, model: str) -> tuple[list[Path], list[str]]:
        """Return the third-party source files, and our modules, that train a model."""

    @abstractmethod
    def train(self, cell: Cell, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> Trained:
        """Train the cell's model without test; UserError for a wrong input, or a loss that diverges."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One training. Cells of equal keys leave equal bytes."""

    data: Data
    model: str
    settings: Section  # of the model's class Params
    protocol: Protocol  # selects the epoch; each of its variants judges
    seed: int  # of initial values, order and negatives, see pipeline.seeds
    ks: tuple[int, ...]
    opens: Opens = "rankings"

    @property
    def facts(self) -> dict[str, Any]:
        """All that determines the result, except file contents, code and versions."""
        return self._training | {"ks": self.ks, "opens": self.opens}

    @cached_property
    def key(self) -> str:
        """The sha256 of all that determines the result."""
        return self._hash(self.facts)

    @cached_property
    def training(self) -> str:
        """Like `key`, but equal for cells that differ only in `ks` and `opens`: they share a checkpoint."""
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
    curve (best valid Recall@20 up to each epoch), observed if any, and judged, per protocol: protocol, fingerprint,
    metrics, a part -> "recall@20" -> mean over users"""
    rankings: dict[str, pa.Table]  # suffix of the protocol -> table rankings(K)


def outcome(cell: Cell, tolerant: bool = False) -> Outcome:
    """Train and judge a cell; with `tolerant` a failed training is an outcome with its reason, else it raises."""
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
    best = None if trained.best_epoch is None else trained.history[trained.best_epoch]
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
