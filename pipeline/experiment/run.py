"""Trains the cells without a record, and writes tables of records."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipeline import engine, io, memory
from pipeline.benchmark.settings import protocol_of
from pipeline.errors import UserError, printable
from pipeline.experiment.cell import Cell, outcome
from pipeline.experiment.store import Record, Store
from pipeline.layout import Layout
from pipeline.models import MODELS
from pipeline.run import ALTERED, Run
from pipeline.train import inputs
from pipeline.versions import described

Label = TypeVar("Label")


@dataclass(frozen=True)
class Work:
    """Trains cells one after the other, until one fails; pickled for worker processes."""

    store: Store
    tolerant: bool = False  # see `cell.outcome`
    costs: Path | None = None  # folder for the cost of each training, by key

    def __call__(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            with self.store.claimed(cell):
                if (record := self.store.get(cell)) is None:  # no other process has finished it
                    with measured(self.costs and self.costs / f"{cell.key}.json"):
                        self.store.put(cell, outcome(cell, self.tolerant))
                    record = self.store.get(cell)
            if record is None or record.values["state"] != "complete":
                return


def complete(
    cells: Iterable[Cell],
    store: Store,
    workers: int,
    shown: Callable[..., Iterable[Any]],
    tolerant: bool = False,
    costs: Path | None = None,
) -> None:
    """Train the cells without a record, slow models first, so that workers end together.

    With `tolerant` a failed training leaves a record with its reason, else it raises. `shown` returns a progress bar of
    an iterable and its total.
    """
    place = {model: number for number, model in enumerate(reversed(MODELS))}
    todo = sorted(([cell] for cell in store.missing(cells)), key=lambda one: place.get(one[0].model, len(place)))
    if todo:
        for _ in shown(engine.each(Work(store, tolerant, costs), todo, workers), total=len(todo)):
            pass


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
        self.costs: Path | None = None  # see `Work`

    def complete(
        self, planned: Mapping[Label, Cell], what: str = "", unit: str = "run", tolerant: bool = False
    ) -> dict[Label, Record]:
        """Return the records of labelled cells; missing ones are trained, see `complete`."""
        cells = list(planned.values())
        self.named |= {cell.key: cell for cell in cells}
        missing = self.store.missing(cells)
        for path in sorted(self.store.doubted):
            self.run.warn(f"{path} {ALTERED}", recorded=False)
        self.store.doubted.clear()

        def shown(done: Iterable[Any], total: int) -> Iterable[Any]:
            return self.run.progress(done, total=total, unit=unit, what=what)

        complete(missing, self.store, self.workers, shown, tolerant, self.costs)
        found: dict[Label, Record] = {}
        for label, cell in planned.items():
            if (record := self.store.get(cell)) is None:
                raise UserError(f"{self.store.folder}: a record was altered while it was written; run again")
            found[label] = record
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


@contextmanager
def measured(path: Path | None) -> Iterator[None]:
    """Write the cost of a block, JSON: seconds of CPU, memory_mib, machine; a no-op without a path.

    memory_mib is the peak resident memory of this process, libraries included; null where the system has no figure.
    """
    if path is None:
        yield
        return
    before, is_reset = time.process_time(), memory.reset_peak()
    yield
    seconds, mib = round(time.process_time() - before, 3), memory.peak_mib() if is_reset else None
    from pipeline.ops.device import pick  # loads torch

    io.write_json(path, {"seconds": seconds, "memory_mib": mib, "machine": described(str(pick()))})
