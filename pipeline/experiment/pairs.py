"""Data of cells: pairs of user and item, with at most one feature set and its graph. I items, F width."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

import schemas
from pipeline import io
from pipeline.benchmark.params import Benchmark
from pipeline.benchmark.runs import NO_FEATURES
from pipeline.config.parameters import Parameters
from pipeline.encode.params import variant
from pipeline.evaluation.trial import open_test
from pipeline.experiment.cell import Cell, Data, Trained, Watch
from pipeline.graph import neighbours
from pipeline.graph.params import Graph
from pipeline.interactions.split import Split
from pipeline.layout import Layout
from pipeline.models import MODELS
from pipeline.ops.checkpoint import Checkpoint
from pipeline.study.params import spoilt
from pipeline.train import inputs
from pipeline.train.inputs import TrainingData
from pipeline.train.loop import Fit, fit


@dataclass(frozen=True)
class Pairs(Data):
    """Data of the recommenders in pipeline/models/."""

    @abstractmethod
    def read(self) -> tuple[TrainingData, Sequence[int]]:
        """Return the data, and the widths of the modalities in the features."""

    def code(self, model: str) -> tuple[list[Path], list[str]]:
        return MODELS.source_files(model), [__name__, MODELS.module(model)]

    def train(self, cell: Cell, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> Trained:
        data, parts = self.read()
        fitted = fit(MODELS[cell.model], *data, cell.settings, cell.seed, watch, checkpoint, parts)  # type: ignore[arg-type]
        return end(fitted, data.split)


def end(fitted: Fit, split: Split, observed: Sequence[dict[str, Any]] = ()) -> Trained:
    judge = partial(open_test, fitted.user, fitted.item, split)
    return Trained(fitted.history, fitted.best_epoch, judge, fitted, observed)


@dataclass(frozen=True)
class Hidden:
    """A modality hidden for a share of the items, whose vectors are those of the masked feature set."""

    modality: str
    ratio: float
    seed: int  # draws the items; the same for both modalities

    def other(self, features: str) -> str:
        return variant(features, self.modality)

    def rows(self, n_items: int) -> np.ndarray:
        """Return the items whose modality is hidden, bool [I]; a larger ratio hides the same items and more."""
        masked = np.zeros(n_items, bool)
        masked[np.random.default_rng(self.seed).permutation(n_items)[: round(self.ratio * n_items)]] = True
        return masked


@dataclass(frozen=True)
class Spoilt(Hidden):
    """Wrong content for a share of the items, whose vectors are those of a set of kind `wrong`."""

    def other(self, features: str) -> str:
        return spoilt(features, self.modality)


@dataclass(frozen=True)
class Stored(Pairs):
    """Outputs of a dataset, or of a branch of it, unchanged or changed in memory."""

    layout: Layout
    features: str | Path | None = None
    """name of a feature set, or a file .npy of vectors in item order; None for models that read only ids"""
    parts: tuple[int, ...] = ()  # widths of the modalities in the features
    graph: Graph | None = None  # how the item graph is rebuilt; None: that of the stage is read
    hidden: Hidden | None = None

    @classmethod
    def of(cls, params: Parameters, layout: Layout, features: str) -> Stored:
        parts = tuple(params[Benchmark].modalities.get(features, []))
        return cls(layout, None if features == NO_FEATURES else features, parts)

    def files(self) -> list[Path]:
        """Return tables, graph and features."""
        tables = [self.layout.interactions, self.layout.users, self.layout.item_ids]
        if self.features is None:
            return tables
        if isinstance(self.features, Path):
            return [*tables, self.features]
        edges = [] if self.graph else [self.layout.edges(self.features)]
        return [*tables, *edges, *(path for name in self._sets() for path in self._shards(name))]

    def facts(self) -> dict[str, Any]:
        """Return names, widths, and what is changed in memory."""
        name = self.features.stem if isinstance(self.features, Path) else self.features
        graph, hidden = self.graph and self.graph.model_dump(), self.hidden and asdict(self.hidden)
        return {"features": name, "modalities": list(self.parts), "graph": graph, "hidden": hidden}

    def read(self) -> tuple[TrainingData, Sequence[int]]:
        if isinstance(self.features, str) and not self.graph and not self.hidden:
            return inputs.read(self.layout, self.features), self.parts
        split = inputs.read(self.layout, None).split
        if self.features is None:
            return TrainingData(split, None, None), ()
        vectors = self._vectors()
        if self.graph:
            edges = neighbours.of_params(vectors, self.graph)
        else:
            edges = io.read_table(self.layout.edges(str(self.features)), schemas.EDGES)
        return TrainingData(split, vectors, edges), self.parts

    def _sets(self) -> list[str]:
        name = str(self.features)
        return [name, self.hidden.other(name)] if self.hidden else [name]

    def _shards(self, name: str) -> list[Path]:
        return io.shards(self.layout.features(name), "features")

    def _vectors(self) -> np.ndarray:
        if isinstance(self.features, Path):
            return np.asarray(np.load(self.features, allow_pickle=False))
        vectors, *masked = (io.matrix(io.read_features(self.layout.features(name))["vector"]) for name in self._sets())
        if not self.hidden:
            return vectors
        return np.where(self.hidden.rows(len(vectors))[:, None], masked[0], vectors)


@dataclass(frozen=True, eq=False)
class Held(Pairs):
    """Data in memory; the item graph is searched on the features."""

    split: Split  # identified by the protocol's fingerprint
    features: np.ndarray | None  # float32 [I, F]
    graph_k: int  # neighbours of an item, itself included
    parts: tuple[int, ...] = ()

    def files(self) -> list[Path]:
        return []

    def facts(self) -> dict[str, Any]:
        """Return the sha256 of the vectors, and how they are read."""
        return {"features": self._sha256, "graph_k": self.graph_k, "modalities": list(self.parts)}

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(b"" if self.features is None else np.ascontiguousarray(self.features).data).hexdigest()

    def read(self) -> tuple[TrainingData, Sequence[int]]:
        edges = None if self.features is None else neighbours.neighbours(self.features, self.graph_k)
        return TrainingData(self.split, self.features, edges), self.parts
