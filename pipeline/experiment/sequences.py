"""Cells whose data are users' items in order: TIGER on semantic IDs, networks on items, popularity.

Letters: U users, n items with an id, D codes of an id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow.parquet as pq
import torch

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.evaluation.protocol import Protocol
from pipeline.evaluation.trial import Result, open_test_ranked
from pipeline.experiment.cell import Cell, Data, Trained, Watch
from pipeline.interactions.split import Part
from pipeline.layout import Layout
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.device import pick
from pipeline.semantic_ids import collisions, files
from pipeline.sequential import sequences
from pipeline.sequential.base import Ranker, Sequential
from pipeline.sequential.judging import Popularity, rankings
from pipeline.sequential.loop import fit
from pipeline.sequential.params import Generative, Reads
from pipeline.sequential.registry import NETWORKS
from pipeline.sequential.sequences import Sequences
from pipeline.sequential.tiger import Tiger

TIGER, POPULARITY = "tiger", "popularity"


@dataclass(frozen=True)
class Ordered(Data):
    """The sequences of a dataset, and what the model reads of its items but their ids."""

    layout: Layout
    codes: tuple[str, str] | None = None
    """feature set and method of the semantic IDs, for TIGER"""
    features: str | None = None
    """feature set, for networks that read one"""
    reads: Reads = "ids"
    resumes: ClassVar[bool] = True

    def files(self) -> list[Path]:
        """Return tables, codes and features."""
        tables = [self.layout.interactions, self.layout.users, self.layout.item_ids]
        if self.codes:
            tables.append(self.layout.semantic_ids(*self.codes) / files.IDS)
        return [*tables, *(io.shards(self.layout.features(self.features), "features") if self.features else ())]

    def facts(self) -> dict[str, Any]:
        """Return whose codes, or which features, are read."""
        return {"codes": self.codes, "features": self.features, "reads": self.reads}

    def code(self, model: str) -> tuple[list[Path], list[str]]:
        """Return this module, which names TIGER, and the network's."""
        return [], [__name__, *([NETWORKS.module(model)] if model in NETWORKS else [])]

    def train(self, cell: Cell, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> Trained:
        """Do as `Data.train`."""
        data, params = read(self.layout), cast(Generative, cell.settings)
        if cell.model == POPULARITY:
            return Trained([], None, _judge(Popularity(data), data, params))
        build = self._builder(cell.model, data.n_items, params)
        fitted = fit(build, data, params, params.rates[0], cell.seed, watch, checkpoint)
        return Trained(fitted.history, fitted.best_epoch, _judge(fitted.network, data, params), fitted)

    def _builder(self, model: str, n_items: int, params: Generative) -> Callable[[], Sequential]:
        if self.codes:
            rows, ids = codes(self.layout.semantic_ids(*self.codes))
            return lambda: Tiger(ids, rows, n_items, params)
        vectors = None
        if self.features:
            vectors = torch.from_numpy(io.matrix(io.read_features(self.layout.features(self.features))["vector"]))
        network = NETWORKS[model]
        own = network.Params(**params.model_dump())  # its other keys are as its authors have them
        return lambda: network(n_items, own, self.reads, vectors)


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


def _judge(ranker: Ranker, data: Sequences, params: Generative) -> Callable[[Protocol, Sequence[int]], Result]:
    def judge(protocol: Protocol, ks: Sequence[int]) -> Result:
        def ranked(part: Part) -> np.ndarray:
            return rankings(ranker, data, part, params.length, max(ks), pick())

        return open_test_ranked(ranked, data.split(), protocol, ks)

    return judge
