"""Train cells and store their records and rankings by key; write the tables of a stage."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm import tqdm

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.cell import Cell, Outcome, train_and_judge
from alignrec.pipeline.benchmark.settings import protocol_of
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.metrics import Evaluation, judge_rankings
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.record import record_digest
from alignrec.pipeline.runtime.run import ALTERED, Run

Label = TypeVar("Label")
PROGRESS = partial(tqdm, unit="run", disable=None)  # `disable=None` hides it without a terminal


@dataclass(frozen=True)
class Record:
    """Stored outcome of a cell."""

    key: str
    values: dict[str, Any]  # as `Outcome.values`
    rankings: dict[str, Path]  # suffix of a protocol -> table rankings(K)


def read_evaluation(path: Path, split: Split, ks: Sequence[int]) -> Evaluation:
    with pq.ParquetFile(path) as file:
        width = file.schema_arrow.field("items").type.list_size
    table = io.read_table(path, schemas.rankings(width))
    top = table["items"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    return judge_rankings(top, table["user_id"].to_numpy(), split.test, split.n_items, ks)


class Store:
    """A folder of records, with further read-only folders; altered records or rankings count as absent.

    Records have hashes of their own, not a journal, as stages also read those in the outputs of others.
    """

    def __init__(self, folder: Path, *others: Path) -> None:
        self.folder, self.others = folder, others
        self.doubted: set[Path] = set()  # records found altered

    def get(self, cell: Cell) -> Record | None:
        return next(
            (r for folder in (self.folder, *self.others) if (r := self._read(folder, cell.key))),
            None,
        )

    def put(self, cell: Cell, outcome: Outcome) -> None:
        digests = {}
        for suffix, table in outcome.rankings.items():
            path = self.folder / f"{cell.key}{suffix}.parquet"
            io.write_table(table, path, schemas.rankings(max(cell.ks)))
            digests[suffix] = io.sha256(path)
        values = {"key": cell.key, "cell": cell.facts, **outcome.values, "rankings": digests}
        # hash the values as they will be read back
        values = json.loads(json.dumps(values))
        io.write_json(self.folder / f"{cell.key}.json", values | {"sha256": record_digest(values)})

    @contextmanager
    def claimed(self, cell: Cell) -> Iterator[None]:
        """Lock a cell against other processes; the system releases the lock of a killed one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / f".{cell.key}.lock"
        with FileLock(lock):
            yield
            lock.unlink(missing_ok=True)  # processes waiting for the lock will find the record

    def files(self, cells: Iterable[Cell]) -> list[Path]:
        records = [record for cell in cells if (record := self._read(self.folder, cell.key))]
        return [
            path
            for one in records
            for path in (self.folder / f"{one.key}.json", *one.rankings.values())
        ]

    def _read(self, folder: Path, key: str) -> Record | None:
        path = folder / f"{key}.json"
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_bytes())
            digest, files = (
                values.pop("sha256"),
                {s: folder / f"{key}{s}.parquet" for s in values["rankings"]},
            )
            digests = {suffix: io.sha256(file) for suffix, file in files.items()}
            if (
                values["key"] == key
                and digest == record_digest(values)
                and digests == values["rankings"]
            ):
                return Record(key, values, files)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
            pass  # the record was not written by `put`
        self.doubted.add(path)
        return None


def train_cell(store: Store, tolerant: bool, cell: Cell) -> None:
    with store.claimed(cell):
        if store.get(cell) is None:
            store.put(cell, train_and_judge(cell, tolerant))


def complete_cells(
    planned: Mapping[Label, Cell],
    store: Store,
    workers: int,
    shown: Callable[..., Iterable[Any]] = PROGRESS,
    tolerant: bool = False,
) -> dict[Label, Record]:
    """Return the records of labelled cells, training those that are missing, slow models first."""
    place = {model: number for number, model in enumerate(reversed(list(MODELS)))}
    missing = {cell.key: cell for cell in planned.values() if store.get(cell) is None}.values()
    if todo := sorted(missing, key=lambda cell: place.get(cell.model, len(place))):
        for _ in shown(
            engine.in_processes(partial(train_cell, store, tolerant), todo, workers),
            total=len(todo),
        ):
            pass
    found = {label: store.get(cell) for label, cell in planned.items()}
    if None in found.values():
        raise UserError(f"{store.folder}: a record was altered while it was written; run again")
    return {label: record for label, record in found.items() if record}


class Experiment:
    """A stage that trains cells: completes the plan's records and writes their tables."""

    def __init__(self, run: Run, workers: int, *others: Path, draws: Sequence[Layout] = ()) -> None:
        """Read the splits: run n trains and evaluates on draw n modulo their number. `others`: stores to read."""
        self.run, self.params, self.layout, self.workers = run, run.params, run.layout, workers
        self.dataset, self.draws = run.dataset, draws or [run.layout]
        self.splits = [inputs.read_inputs(layout, None).split for layout in self.draws]
        self.split = self.splits[0]
        self.rules = protocol_of(
            run.params, run.dataset, *self.splits
        )  # selects epochs; its variants are evaluated
        self.store = Store(run.layout.cells(run.stage), *others)
        self.named: dict[str, Cell] = {}
        self.made: list[Path] = []  # files written besides records

    def complete(
        self,
        planned: Mapping[Label, Cell],
        what: str = "",
        unit: str = "run",
        tolerant: bool = False,
    ) -> dict[Label, Record]:
        self.named |= {cell.key: cell for cell in planned.values()}
        shown = partial(self.run.progress, unit=unit, what=what)
        found = complete_cells(planned, self.store, self.workers, shown, tolerant)
        for path in sorted(self.store.doubted):
            self.run.warn(f"{path} {ALTERED}", recorded=False)
        self.store.doubted.clear()
        return found

    def write(self, files: Mapping[str, pa.Table | Any]) -> None:
        for name, content in files.items():
            path = self.run.folder / name
            if isinstance(content, pa.Table):
                self.run.write(content, path, content.schema)
            else:
                io.write_json(path, content)
            self.made.append(path)

    def end(self) -> None:
        """Delete files and records that this run neither wrote nor planned."""
        kept = self.store.files(self.named.values())
        left = {path.stem for path in self.store.folder.glob("*.json")} - self.named.keys()
        io.keep_only(self.run.folder, [*self.made, *kept])
        if left:
            text = f"{self.run.label}: deleted records of {len(left):,} trainings that no plan names any more"
            print(printable(text), file=sys.stderr, flush=True)
            self.run.measure(deleted=len(left))
