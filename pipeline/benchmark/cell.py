"""A cell of the benchmark: one training run, keyed by a hash of everything that determines its result.

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
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.cutoff import CUTOFF
from alignrec.pipeline.evaluation.metrics import ModelEvaluation, open_test
from alignrec.pipeline.evaluation.protocol import Protocol
from alignrec.pipeline.features.graph import neighbours_by_params
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models import MODELS
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
RECALL = f"valid_recall@{CUTOFF}"


class Entry(NamedTuple):
    """One training run of the benchmark."""

    model: str
    features: str  # feature set, or NO_FEATURES
    seed: int  # number of the run
    ablation: str = ""  # key of `benchmark.ablations`; empty for the full model


def list_runs(keys: Mapping[Entry, str]) -> list[dict[str, str | int]]:
    return [entry._asdict() | {"cell": key} for entry, key in keys.items()]


def read_runs(layout: Layout) -> dict[Entry, str]:
    rows = io.read_json(layout.runs) if layout.runs.is_file() else []
    return {Entry(**{name: row[name] for name in Entry._fields}): row["cell"] for row in rows}


def rankings_path(layout: Layout, entry: Entry, suffix: str = "") -> Path:
    return layout.cells("benchmark") / f"{read_runs(layout)[entry]}{suffix}.parquet"


@dataclass(frozen=True)
class Hidden:
    """Hides a modality of a fraction of the items: their vectors come from the masked feature set."""

    modality: str
    ratio: float
    seed: int  # seed of the drawn items; the same for both modalities

    def rows(self, n_items: int) -> np.ndarray:
        """Return which items are hidden, bool [I]; sets of larger ratios contain those of smaller ones."""
        masked = np.zeros(n_items, bool)
        masked[
            np.random.default_rng(self.seed).permutation(n_items)[: round(self.ratio * n_items)]
        ] = True
        return masked


@dataclass(frozen=True)
class DatasetData:
    """Outputs of a dataset, optionally changed in memory; pickled for worker processes."""

    layout: Layout
    features: str | Path | None = (
        None  # feature set or, with `graph`, an .npy file; None for models that read ids only
    )
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
        tables = inputs.input_files(self.layout, None)
        if isinstance(self.features, Path):
            return [*tables, self.features]
        return tables + [
            path
            for name in self._sets()
            for path in io.shards(self.layout.features(name), "features")
        ]

    def facts(self) -> dict[str, Any]:
        name = self.features.stem if isinstance(self.features, Path) else self.features
        graph, hidden = self.graph and self.graph.model_dump(), self.hidden and asdict(self.hidden)
        return {"features": name, "modalities": list(self.parts), "graph": graph, "hidden": hidden}

    def read(self) -> TrainingData:
        if self.features is None or self.graph is None:
            return inputs.read_inputs(self.layout, self._name)
        if isinstance(self.features, Path):
            vectors = np.asarray(np.load(self.features, allow_pickle=False))
        else:
            sets = (
                io.matrix(io.read_features(self.layout.features(name))["vector"])
                for name in self._sets()
            )
            vectors, *masked = sets
            if self.hidden:
                vectors = np.where(self.hidden.rows(len(vectors))[:, None], masked[0], vectors)
        edges = neighbours_by_params(vectors, self.graph)
        return TrainingData(inputs.read_inputs(self.layout, None).split, vectors, edges)

    @property
    def _name(self) -> str | None:
        return None if self.features is None else str(self.features)

    def _sets(self) -> list[str]:
        name = str(self.features)
        return [name, variant(name, self.hidden.modality)] if self.hidden else [name]


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
        edges = (
            None
            if self.features is None
            else neighbours.find_neighbours(self.features, self.graph_k)
        )
        return TrainingData(self.split, self.features, edges)


@dataclass(frozen=True, eq=False)
class Cell:
    """One training run; cells with equal keys have byte-identical results."""

    data: DatasetData | InMemoryData
    model: str
    settings: Train  # an instance of the model's class Params
    protocol: Protocol  # selects the epoch; each of its variants is evaluated
    seed: int  # seed of initial weights, order and negatives, see pipeline.harness.seeds
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
        return fit(
            model, *data, self.settings, self.seed, watch, checkpoint, self.data.parts
        ), data.split

    def judge(self, fitted: Fit, split: Split) -> list[ModelEvaluation]:
        return [
            open_test(fitted.user, fitted.item, split, one, self.ks)
            for one in self.protocol.variants
        ]


class Outcome(NamedTuple):
    """The record of one training run, and its recommendations for test users."""

    # JSON: state (complete or failed), reason, epochs, best_epoch, best (that epoch's line of the history), curve (best
    # valid Recall@20 up to each epoch), and judged: per protocol its name, fingerprint, and part -> metric -> mean
    values: dict[str, Any]
    rankings: dict[str, pa.Table]  # suffix of the protocol -> table rankings(K)


def train_and_judge(cell: Cell, tolerant: bool = False) -> Outcome:
    """Train and evaluate a cell; failed training raises UserError or, if `tolerant`, is recorded with its reason."""
    lines: list[dict[str, Any]] = []
    try:
        fitted, split = cell.train(lines.append)
        results = cell.judge(fitted, split) if cell.opens != "valid" else []
    except UserError as e:
        if not tolerant:
            raise
        failed: dict[str, Any] = {
            "best_epoch": None,
            "best": {},
            "curve": _best_so_far(lines),
            "judged": [],
        }
        return Outcome({"state": "failed", "reason": str(e), "epochs": len(lines), **failed}, {})
    judged = []
    for result in results:
        means = {"valid": result.valid.mean, "test": result.test.mean}
        metrics = {
            part: {f"{metric}@{k}": value for (metric, k), value in of.items()}
            for part, of in means.items()
        }
        judged.append(result.label | {"metrics": metrics})
    values = {
        "state": "complete",
        "reason": "",
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "best": fitted.history[fitted.best_epoch],
        "curve": _best_so_far(fitted.history),
        "judged": judged,
    }
    kept = zip(cell.protocol.variants, results, strict=True) if cell.opens == "rankings" else ()
    rankings = {}
    for protocol, result in kept:
        top = result.test.top
        lists = pa.FixedSizeListArray.from_arrays(
            pa.array(top.ravel()), type=schemas.rankings(top.shape[1]).field("items").type
        )
        rankings[protocol.suffix] = pa.table({"user_id": result.test.users, "items": lists})
    return Outcome(values, rankings)


def _best_so_far(history: Sequence[dict[str, Any]]) -> list[float]:
    return [float(best) for best in itertools.accumulate((line[RECALL] for line in history), max)]
