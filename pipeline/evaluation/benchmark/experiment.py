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
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.benchmark.cell import Cell, train_and_judge
from alignrec.pipeline.evaluation.benchmark.settings import protocol_of
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.metrics import Evaluation, judge_rankings
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.record import record_digest
from alignrec.pipeline.runtime.run import ALTERED, Run

Label = TypeVar("Label")
PROGRESS = partial(tqdm, unit="run", disable=None)  # `disable=None` hides it without a terminal


@dataclass(frozen=True)
class CellResult:
    """What training a cell yielded, as stored."""

    key: str
    # JSON: state (complete or failed), reason, epochs, best_epoch, best (that epoch's line of the
    # history), curve (best valid Recall@20 up to each epoch), and judged: per protocol its name,
    # fingerprint, and part -> metric -> mean
    values: dict[str, Any]
    rankings: dict[str, Path]  # suffix of a protocol -> table rankings(K)


def read_evaluation(path: Path, split: Split, ks: Sequence[int]) -> Evaluation:
    with pq.ParquetFile(path) as file:
        width = file.schema_arrow.field("items").type.list_size
    table = io.read_table(path, schemas.rankings(width))
    top = table["items"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    return judge_rankings(top, table["user_id"].to_numpy(), split.test, split.n_items, ks)


class Store:
    """A folder of results by the keys of their cells, with further read-only folders.

    Altered results count as absent. They have hashes of their own, not a journal, as stages also
    read those in the outputs of others.
    """

    def __init__(self, folder: Path, *read_only: Path) -> None:
        self.folder = folder
        self.read_only = read_only
        self.altered: set[Path] = set()

    def get(self, cell: Cell) -> CellResult | None:
        for folder in (self.folder, *self.read_only):
            result = self._read(folder, cell.key)
            if result is not None:
                return result
        return None

    def put(self, cell: Cell, values: dict[str, Any], rankings: Mapping[str, pa.Table]) -> None:
        digests = {}
        for suffix, table in rankings.items():
            path = self.folder / f"{cell.key}{suffix}.parquet"
            io.write_table(table, path, schemas.rankings(max(cell.ks)))
            digests[suffix] = io.sha256(path)

        record = {"key": cell.key, "cell": cell.facts, **values, "rankings": digests}
        record = json.loads(json.dumps(record))  # hash the values as they will be read back
        io.write_json(self.folder / f"{cell.key}.json", record | {"sha256": record_digest(record)})

    @contextmanager
    def claimed(self, cell: Cell) -> Iterator[None]:
        """Lock a cell against other processes; the system releases the lock of a killed one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / f".{cell.key}.lock"
        with FileLock(lock):
            yield
            lock.unlink(missing_ok=True)  # processes waiting for the lock will find the result

    def files(self, cells: Iterable[Cell]) -> list[Path]:
        paths = []
        for cell in cells:
            result = self._read(self.folder, cell.key)
            if result is not None:
                paths += [self.folder / f"{cell.key}.json", *result.rankings.values()]
        return paths

    def _read(self, folder: Path, key: str) -> CellResult | None:
        path = folder / f"{key}.json"
        if not path.is_file():
            return None

        try:
            values = json.loads(path.read_bytes())
            digest = values.pop("sha256")
            files = {suffix: folder / f"{key}{suffix}.parquet" for suffix in values["rankings"]}
            digests = {suffix: io.sha256(file) for suffix, file in files.items()}
            is_intact = (
                values["key"] == key
                and digest == record_digest(values)
                and digests == values["rankings"]
            )
            if is_intact:
                return CellResult(key, values, files)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
            pass  # the file was not written by `put`
        self.altered.add(path)
        return None


def train_cell(store: Store, tolerant: bool, cell: Cell) -> None:
    with store.claimed(cell):
        if store.get(cell) is None:
            store.put(cell, *train_and_judge(cell, tolerant))


def complete_cells(
    planned: Mapping[Label, Cell],
    store: Store,
    workers: int,
    progress: Callable[..., Iterable[Any]] = PROGRESS,
    tolerant: bool = False,
) -> dict[Label, CellResult]:
    """Return the results of labelled cells, training those that are missing, slow models first."""
    missing = {cell.key: cell for cell in planned.values() if store.get(cell) is None}
    if missing:
        slow_first = [*reversed(list(MODELS))]
        place = {model: number for number, model in enumerate(slow_first)}
        todo = sorted(missing.values(), key=lambda cell: place.get(cell.model, len(place)))
        training = engine.in_processes(partial(train_cell, store, tolerant), todo, workers)
        for _ in progress(training, total=len(todo)):
            pass

    results = {}
    for label, cell in planned.items():
        result = store.get(cell)
        if result is None:
            raise UserError(f"{store.folder}: a record was altered while it was written; run again")
        results[label] = result
    return results


class Experiment:
    """A stage that trains cells: completes the plan's results and writes their tables."""

    def __init__(
        self, run: Run, workers: int, *read_only: Path, draws: Sequence[Layout] = ()
    ) -> None:
        """Read the splits: run n trains and evaluates on draw n modulo their number.

        `read_only` are folders of results by other stages.
        """
        self.run = run
        self.params = run.params
        self.layout = run.layout
        self.dataset = run.dataset
        self.workers = workers
        self.draws = draws or [run.layout]

        self.splits = [inputs.read_inputs(layout, None).split for layout in self.draws]
        self.split = self.splits[0]
        # selects epochs; its variants are evaluated
        self.rules = protocol_of(run.params, run.dataset, *self.splits)
        self.store = Store(run.layout.cells(run.stage), *read_only)
        self.planned: dict[str, Cell] = {}  # by key
        self.written: list[Path] = []  # besides results of cells

    def complete(
        self,
        planned: Mapping[Label, Cell],
        what: str = "",
        unit: str = "run",
        tolerant: bool = False,
    ) -> dict[Label, CellResult]:
        self.planned |= {cell.key: cell for cell in planned.values()}
        progress = partial(self.run.progress, unit=unit, what=what)
        results = complete_cells(planned, self.store, self.workers, progress, tolerant)

        for path in sorted(self.store.altered):
            self.run.warn(f"{path} {ALTERED}", recorded=False)
        self.store.altered.clear()
        return results

    def write(self, files: Mapping[str, pa.Table | Any]) -> None:
        for name, content in files.items():
            path = self.run.folder / name
            if isinstance(content, pa.Table):
                self.run.write(content, path, content.schema)
            else:
                io.write_json(path, content)
            self.written.append(path)

    def end(self) -> None:
        """Delete files and results that this run neither wrote nor planned."""
        stored = {path.stem for path in self.store.folder.glob("*.json")}
        stale = stored - self.planned.keys()
        io.keep_only(self.run.folder, [*self.written, *self.store.files(self.planned.values())])
        if stale:
            text = (
                f"{self.run.label}: deleted records of {len(stale):,} trainings that no plan "
                "names any more"
            )
            print(printable(text), file=sys.stderr, flush=True)
            self.run.measure(deleted=len(stale))
