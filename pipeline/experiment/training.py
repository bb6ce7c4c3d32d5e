"""What one training leaves: its record and its rankings. Letters: N test users, K cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline.errors import UserError
from pipeline.evaluation.cutoff import CUTOFF
from pipeline.evaluation.trial import Result
from pipeline.experiment.cell import Cell, Pruned, Trained
from pipeline.ops.checkpoint import Checkpoint

RECALL = f"valid_recall@{CUTOFF}"
"""figure of a line of the history"""


class Outcome(NamedTuple):
    """The record of one training, and whom test recommends what."""

    values: dict[str, Any]
    """JSON: state (complete, pruned or failed), reason, epochs, best_epoch, best (that epoch's line of the history),
    curve (best valid Recall@20 up to each epoch), observed where something was, and judged, an object a protocol:
    protocol, fingerprint, metrics, a part -> "recall@20" -> mean over users"""
    rankings: dict[str, pa.Table]
    """suffix of the protocol -> table rankings(K)"""


def outcome(cell: Cell, checkpoint: Checkpoint | None = None, tolerant: bool = False) -> Outcome:
    """Train a cell and open what it opens.

    Args:
        tolerant: whether a training that fails is an outcome, with the reason; else it raises.
    """
    curve: list[float] = []
    rule = cell.pruning.watch() if cell.pruning else None

    def watch(line: dict[str, Any]) -> None:
        curve.append(max([line[RECALL], *curve[-1:]]))
        if rule:
            rule(curve[-1])

    try:
        trained = cell.data.train(cell, watch, checkpoint)
        results = opened(cell, trained) if cell.opens != "valid" else []
    except Pruned:
        return Outcome(_values("pruned", len(curve), curve), {})
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
    """Open test under each of the protocol's variants."""
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
