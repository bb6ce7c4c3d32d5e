"""Cells whose data are users' items in order: TIGER on semantic IDs, SASRec on item ids, popularity.

Letters: U users, n items with an id, D codes of an id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow.parquet as pq

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
from pipeline.sequential.params import Generative
from pipeline.sequential.sasrec import SASRec
from pipeline.sequential.sequences import Sequences
from pipeline.sequential.tiger import Tiger

TIGER, SASREC, POPULARITY = "tiger", "sasrec", "popularity"


@dataclass(frozen=True)
class Ordered(Data):
    """The sequences of a dataset, and the semantic IDs of its items if the model reads them."""

    layout: Layout
    codes: tuple[str, str] | None = None
    """feature set and method of the semantic IDs"""
    resumes: ClassVar[bool] = True

    def files(self) -> list[Path]:
        """Return tables and codes."""
        tables = [self.layout.interactions, self.layout.users, self.layout.item_ids]
        return tables if self.codes is None else [*tables, self.layout.semantic_ids(*self.codes) / files.IDS]

    def facts(self) -> dict[str, Any]:
        """Return whose codes are read."""
        return {"codes": self.codes}

    def code(self, model: str) -> tuple[list[Path], list[str]]:
        """Return this module."""
        return [], [__name__]

    def train(self, cell: Cell, watch: Watch | None = None, checkpoint: Checkpoint | None = None) -> Trained:
        """Do as `Data.train`."""
        data, params = read(self.layout), cast(Generative, cell.settings)
        if cell.model == POPULARITY:
            return Trained([], None, _judge(Popularity(data), data, params))
        build = self._builder(cell.model, data.n_items, params)
        fitted = fit(build, data, params, params.rates[0], cell.seed, watch, checkpoint)
        return Trained(fitted.history, fitted.best_epoch, _judge(fitted.network, data, params), fitted)

    def _builder(self, model: str, n_items: int, params: Generative) -> Callable[[], Sequential]:
        if self.codes is None:
            return lambda: SASRec(n_items, params)
        rows, ids = codes(self.layout.semantic_ids(*self.codes))
        return lambda: Tiger(ids, rows, n_items, params)


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
