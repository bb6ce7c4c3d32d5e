"""A cell of the benchmark: one training run, keyed by a hash of all that determines its result.

Letters: I items, F width of features, N test users, K cutoff.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.held_out import ModelEvaluation, open_test
from alignrec.pipeline.evaluation.protocol import Protocol
from alignrec.pipeline.features.graph import neighbours_by_params
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.models.metrics import Evaluation
from alignrec.pipeline.models.params import Train
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.inputs import TrainingData
from alignrec.pipeline.models.training.loop import Fit, fit
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.run import Run
from alignrec.schemas import variant

NO_FEATURES = "none"
Opens = Literal["valid", "test", "rankings"]  # what is evaluated; each includes the previous
VALID_RECALL = f"valid_recall@{CUTOFF}"


class CellLabel(NamedTuple):
    """Names a training run; runs of closed-form models that differ in their seed share a cell."""

    model: str
    features: str  # feature set, or NO_FEATURES
    seed: int  # number of the run
    ablation: str = ""  # key of `benchmark.ablations`; empty for the full model


def list_runs(keys: Mapping[CellLabel, str]) -> list[dict[str, str | int]]:
    return [label._asdict() | {"cell": key} for label, key in keys.items()]


def read_runs(layout: Layout) -> dict[CellLabel, str]:
    if not layout.runs.is_file():
        return {}

    keys = {}
    for row in io.read_json(layout.runs):
        label = CellLabel(row["model"], row["features"], row["seed"], row["ablation"])
        keys[label] = row["cell"]
    return keys


def rankings_path(layout: Layout, label: CellLabel, suffix: str = "") -> Path:
    return layout.cells("benchmark") / f"{read_runs(layout)[label]}{suffix}.parquet"


@dataclass(frozen=True)
class Hidden:
    """A fraction of the items without a modality: their vectors are those of the masked set."""

    modality: str
    ratio: float
    seed: int  # seed of the drawn items; the same for both modalities

    def rows(self, n_items: int) -> np.ndarray:
        """Return which items are hidden, bool [I]; a larger ratio hides the same items and more."""
        order = np.random.default_rng(self.seed).permutation(n_items)
        masked = np.zeros(n_items, bool)
        masked[order[: round(self.ratio * n_items)]] = True
        return masked


@dataclass(frozen=True)
class DatasetData:
    """Outputs of a dataset, optionally changed in memory; pickled for worker processes."""

    layout: Layout
    # feature set or, with `graph`, an .npy file; None for models that read ids only
    features: str | Path | None = None
    parts: tuple[int, ...] = ()  # widths of the modalities in the features; empty for one modality
    graph: Graph | None = None  # parameters to rebuild the item graph; None to read the stage's
    hidden: Hidden | None = None  # with `graph`

    @classmethod
    def of(cls, params: Parameters, layout: Layout, features: str) -> DatasetData:
        parts = tuple(params[Benchmark].modalities.get(features, []))
        return cls(layout, None if features == NO_FEATURES else features, parts)

    def files(self) -> list[Path]:
        if self.features is None or self.graph is None:
            return inputs.input_files(self.layout, self._name)

        files = inputs.input_files(self.layout, None)
        if isinstance(self.features, Path):
            return [*files, self.features]
        for name in self._sets():
            files += io.shards(self.layout.features(name), "features")
        return files

    def facts(self) -> dict[str, Any]:
        return {
            "features": self.features.stem if isinstance(self.features, Path) else self.features,
            "modalities": list(self.parts),
            "graph": self.graph and self.graph.model_dump(),
            "hidden": self.hidden and asdict(self.hidden),
        }

    def read(self) -> TrainingData:
        if self.features is None or self.graph is None:
            return inputs.read_inputs(self.layout, self._name)

        vectors = self._vectors()
        edges = neighbours_by_params(vectors, self.graph)
        return TrainingData(inputs.read_inputs(self.layout, None).split, vectors, edges)

    @property
    def _name(self) -> str | None:
        return None if self.features is None else str(self.features)

    def _sets(self) -> list[str]:
        name = str(self.features)
        return [name, variant(name, self.hidden.modality)] if self.hidden else [name]

    def _vectors(self) -> np.ndarray:
        """Return the vectors of a changed dataset, [I, F], with those of hidden items replaced."""
        if isinstance(self.features, Path):
            return np.asarray(np.load(self.features, allow_pickle=False))

        matrices = []
        for name in self._sets():
            table = io.read_features(self.layout.features(name))
            matrices.append(io.matrix(table["vector"]))
        if not self.hidden:
            return matrices[0]

        vectors, masked = matrices
        is_hidden = self.hidden.rows(len(vectors))
        return np.where(is_hidden[:, None], masked, vectors)


@dataclass(frozen=True, eq=False)
class InMemoryData:
    """A dataset in memory, whose item graph is built from its features."""

    split: Split  # identified by the protocol's fingerprint
    features: np.ndarray | None  # float32 [I, F]
    graph_k: int  # neighbours per item, including itself
    parts: tuple[int, ...] = ()

    def files(self) -> list[Path]:
        return []

    def facts(self) -> dict[str, Any]:
        vectors = b"" if self.features is None else np.ascontiguousarray(self.features).data
        digest = hashlib.sha256(vectors).hexdigest()
        return {"features": digest, "graph_k": self.graph_k, "modalities": list(self.parts)}

    def read(self) -> TrainingData:
        if self.features is None:
            return TrainingData(self.split, None, None)
        edges = neighbours.find_neighbours(self.features, self.graph_k)
        return TrainingData(self.split, self.features, edges)


@dataclass(frozen=True, eq=False)
class Cell:
    """One training run; cells with equal keys have byte-identical results."""

    data: DatasetData | InMemoryData
    model: str
    settings: Train  # an instance of the model's class Params
    protocol: Protocol  # selects the epoch; each of its variants is evaluated
    seed: int  # seed of initial weights, order and negatives, see pipeline/runtime/seeds.py
    ks: tuple[int, ...]
    opens: Opens = "rankings"

    @cached_property
    def key(self) -> str:
        files = [*self.data.files(), *MODELS.source_files(self.model)]
        return Run.key(files, self.facts, [__name__, MODELS.module(self.model)])

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "data": self.data.facts(),
            "settings": self.settings.model_dump(mode="json"),
            "protocol": self.protocol.fingerprint,
            "seed": self.seed,
            "ks": self.ks,
            "opens": self.opens,
        }

    def train(
        self,
        watch: Callable[[dict[str, Any]], object] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> tuple[Fit, Split]:
        """Train without opening test; arguments and errors are those of `loop.fit`."""
        data = self.data.read()
        model = MODELS[self.model]
        fitted = fit(model, *data, self.settings, self.seed, watch, checkpoint, self.data.parts)
        return fitted, data.split

    def judge(self, fitted: Fit, split: Split) -> list[ModelEvaluation]:
        variants = self.protocol.variants
        return [open_test(fitted.user, fitted.item, split, rules, self.ks) for rules in variants]


Trained = tuple[dict[str, Any], dict[str, pa.Table]]  # values and rankings of a CellResult


def train_and_judge(cell: Cell, tolerant: bool = False) -> Trained:
    """Train and evaluate a cell.

    Failed training raises UserError or, if `tolerant`, is recorded with its reason.
    """
    lines: list[dict[str, Any]] = []
    try:
        fitted, split = cell.train(lines.append)
        evaluations = cell.judge(fitted, split) if cell.opens != "valid" else []
    except UserError as e:
        if not tolerant:
            raise
        return _failed_values(str(e), lines), {}

    values = {
        "state": "complete",
        "reason": "",
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "best": fitted.history[fitted.best_epoch],
        "curve": _best_so_far(fitted.history),
        "judged": [_means_of(evaluation) for evaluation in evaluations],
    }
    rankings = {}
    if cell.opens == "rankings":
        for rules, evaluation in zip(cell.protocol.variants, evaluations, strict=True):
            rankings[rules.suffix] = _rankings_table(evaluation.test)
    return values, rankings


def _failed_values(reason: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "state": "failed",
        "reason": reason,
        "epochs": len(lines),
        "best_epoch": None,
        "best": {},
        "curve": _best_so_far(lines),
        "judged": [],
    }


def _means_of(evaluation: ModelEvaluation) -> dict[str, Any]:
    """Return the protocol's name and fingerprint, and part -> metric -> mean."""
    metrics = {"valid": evaluation.valid.named_means(), "test": evaluation.test.named_means()}
    return evaluation.label | {"metrics": metrics}


def _rankings_table(evaluation: Evaluation) -> pa.Table:
    top = evaluation.top
    list_type = schemas.rankings(top.shape[1]).field("items").type
    items = pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), type=list_type)
    return pa.table({"user_id": evaluation.users, "items": items})


def _best_so_far(history: Sequence[dict[str, Any]]) -> list[float]:
    recalls = (line[VALID_RECALL] for line in history)
    return [float(best) for best in itertools.accumulate(recalls, max)]
