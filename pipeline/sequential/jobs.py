"""One training of a sequential recommender, and what came of it. Letters: U users, D codes of an id, K cutoff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import Result, open_test_ranked
from pipeline.interactions.split import Part
from pipeline.layout import Layout
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.device import pick
from pipeline.seeds import seed_for
from pipeline.semantic_ids import collisions, files
from pipeline.sequential import sequences
from pipeline.sequential.base import Ranker, Sequential
from pipeline.sequential.judging import rankings
from pipeline.sequential.loop import CHOSEN_BY, fit
from pipeline.sequential.params import Generative
from pipeline.sequential.popularity import Popularity
from pipeline.sequential.sasrec import SASRec
from pipeline.sequential.sequences import Sequences
from pipeline.sequential.tiger import Tiger

TIGER, SASREC, POPULARITY = "tiger", "sasrec", "popularity"
NONE = "none"
"""feature set and method of models on item ids"""


class Contender(NamedTuple):
    """One row of the comparison."""

    model: str
    features: str
    """feature set whose codes it reads, or NONE"""
    method: str
    """that made the codes, or NONE"""


class Job(NamedTuple):
    """One training."""

    contender: Contender
    rate: float
    """of Adam"""
    seed: int
    """number of the run; equal numbers draw the same order of windows"""
    opens: bool
    """whether test is opened at the best valid epoch"""
    checkpoint: Path
    """stays after a training that does not open test, so that the one that does need not train again"""


class Trained(NamedTuple):
    """What a training left."""

    record: dict[str, Any]
    """rate, seed, epochs, best_epoch, its loss and valid NDCG@20, protocol, fingerprint, and metrics, part -> figures:
    where test stayed closed, those that valid was watched by"""
    users: np.ndarray
    """int32 [U], of test; empty where it stayed closed"""
    top: np.ndarray
    """int32 [U, K], the items recommended to them"""


@dataclass(frozen=True)
class Trial:
    """Trains one job; pickled for the processes of a pool."""

    layout: Layout
    params: Generative
    protocol: Protocol

    def __call__(self, job: Job) -> Trained:
        """Train, and open test if the job does."""
        data, contender = read(self.layout), job.contender
        seed = seed_for("generative", self.layout.dataset, contender.model, job.seed)
        build = _builder(self.layout, contender, data.n_items, self.params)
        fitted = fit(build, data, self.params, job.rate, seed, checkpoint=Checkpoint(job.checkpoint, 1))
        facts = {"rate": job.rate, "seed": job.seed, "epochs": len(fitted.history), "best_epoch": fitted.best_epoch}
        record = facts | {key: fitted.best[key] for key in ("loss", CHOSEN_BY)}
        if not job.opens:
            watched = {name: fitted.best[f"valid_{name}"] for name in ("recall@20", "ndcg@20")}
            record |= self.protocol.label | {"metrics": {"valid": watched}}
            return Trained(record, np.zeros(0, np.int32), np.zeros((0, max(self.params.ks)), np.int32))
        return self._opened(fitted.network, data, record)

    def popularity(self) -> Trained:
        """Judge the trivial control, which nothing trains."""
        data = read(self.layout)
        facts = {"rate": None, "seed": 0, "epochs": 0, "best_epoch": None}
        return self._opened(Popularity(data), data, facts)

    def _opened(self, ranker: Ranker, data: Sequences, record: dict[str, Any]) -> Trained:
        ks = self.params.ks

        def ranked(part: Part) -> np.ndarray:
            return rankings(ranker, data, part, self.params.length, max(ks), pick())

        result = open_test_ranked(ranked, data.split(), self.protocol, ks)
        return Trained(record | result.label | {"metrics": _means(result)}, result.test.users, result.test.top)


def read(layout: Layout) -> Sequences:
    """Read the sequences of a dataset."""
    users = io.read_table(layout.users, schemas.USERS, ["user_id"])
    items = io.read_table(layout.item_ids, schemas.ITEM_IDS, ["item_id"])
    return sequences.load(io.read_table(layout.interactions, schemas.INTERACTIONS), len(users), len(items))


def codes(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the items that have an id, int64 [n], and ids that tell them apart, int64 [n, D].

    Where codes are equal and nothing was added to tell items apart, a last code numbers them, as policy `suffix` does.

    Raises:
        UserError: no item has an id.
    """
    path = folder / files.IDS
    levels = pq.read_schema(path).field("codes").type.list_size
    table = io.read_table(path, schemas.semantic_ids(levels))
    rows, given = files.matrix(table)
    if not len(rows):
        raise UserError(f"{path}: no item has an id; leave its feature set out of 'study.generative.features'")
    suffix = table["suffix"].drop_null().to_numpy() if table["suffix"].null_count < len(table) else None
    if suffix is None:
        suffix = collisions.suffixes(given)
    return rows, np.column_stack([given, suffix] if suffix.any() else [given]).astype(np.int64)


def _builder(layout: Layout, contender: Contender, n_items: int, params: Generative) -> Callable[[], Sequential]:
    if contender.model == SASREC:
        return lambda: SASRec(n_items, params)
    rows, ids = codes(layout.semantic_ids(contender.features, contender.method))
    return lambda: Tiger(ids, rows, n_items, params)


def _means(result: Result) -> dict[str, dict[str, float]]:
    return {
        part: {f"{metric}@{k}": value for (metric, k), value in evaluation.mean.items()}
        for part, evaluation in (("valid", result.valid), ("test", result.test))
    }
