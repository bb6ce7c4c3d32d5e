"""Trains the cells without a record, and writes tables of records."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from tqdm import tqdm

from pipeline import engine, io
from pipeline.benchmark.cell import Cell, outcome
from pipeline.benchmark.settings import protocol_of
from pipeline.benchmark.store import Record, Store
from pipeline.errors import UserError, printable
from pipeline.layout import Layout
from pipeline.models import MODELS
from pipeline.run import ALTERED, Run
from pipeline.train import inputs

Label = TypeVar("Label")
PROGRESS = partial(tqdm, unit="run", disable=None)  # a progress bar where stderr is a terminal


def train_cell(store: Store, tolerant: bool, cell: Cell) -> None:
    """Train a cell that no other process has finished; see `cell.outcome`."""
    with store.claimed(cell):
        if store.get(cell) is None:
            store.put(cell, outcome(cell, tolerant))


def complete(
    planned: Mapping[Label, Cell],
    store: Store,
    workers: int,
    shown: Callable[..., Iterable[Any]] = PROGRESS,
    tolerant: bool = False,
) -> dict[Label, Record]:
    """Return the records of labelled cells; those without one are trained, slow models first.

    A failed training raises, or if `tolerant` leaves a record with its reason.
    """
    place = {model: number for number, model in enumerate(reversed(MODELS))}
    missing = store.missing(planned.values())
    if todo := sorted(missing, key=lambda cell: place.get(cell.model, len(place))):
        for _ in shown(engine.each(partial(train_cell, store, tolerant), todo, workers), total=len(todo)):
            pass
    found = {label: store.get(cell) for label, cell in planned.items()}
    if None in found.values():
        raise UserError(f"{store.folder}: a record was altered while it was written; run again")
    return {label: record for label, record in found.items() if record}


class Experiment:
    """A stage that trains cells: plans ask it for records, and it writes their tables."""

    def __init__(self, run: Run, workers: int, *others: Path, draws: Sequence[Layout] = ()) -> None:
        """Read the split, and further stores; run number n trains and is judged on draw n modulo their number."""
        self.run, self.params, self.layout, self.workers = run, run.params, run.layout, workers
        self.dataset, self.draws = run.dataset, draws or [run.layout]
        self.splits = [inputs.read(layout, None).split for layout in self.draws]
        self.split = self.splits[0]
        self.rules = protocol_of(run.params, run.dataset, *self.splits)  # selects epochs; each variant judges
        self.store = Store(run.layout.cells(run.stage), *others)
        self.named: dict[str, Cell] = {}
        self.made: list[Path] = []  # files that are not records

    def complete(
        self, planned: Mapping[Label, Cell], what: str = "", unit: str = "run", tolerant: bool = False
    ) -> dict[Label, Record]:
        self.named |= {cell.key: cell for cell in planned.values()}
        shown = partial(self.run.progress, unit=unit, what=what)
        found = complete(planned, self.store, self.workers, shown, tolerant)
        for path in sorted(self.store.doubted):
            self.run.warn(f"{path} {ALTERED}", recorded=False)
        self.store.doubted.clear()
        return found

    def write(self, files: Mapping[str, pa.Table | Any]) -> None:
        """Write tables and JSON values into the stage's folder, by file name."""
        for name, content in files.items():
            path = self.run.folder / name
            if isinstance(content, pa.Table):
                self.run.write(content, path, content.schema)
            else:
                io.write_json(path, content)
            self.made.append(path)

    def end(self) -> None:
        """Delete files and records that this run neither wrote nor named."""
        kept = self.store.files(self.named.values())
        left = {path.stem for path in self.store.folder.glob("*.json")} - self.named.keys()
        io.keep_only(self.run.folder, [*self.made, *kept])
        if left:
            text = f"{self.run.label}: deleted records of {len(left):,} trainings that no plan names any more"
            print(printable(text), file=sys.stderr, flush=True)
            self.run.measure(deleted=len(left))
