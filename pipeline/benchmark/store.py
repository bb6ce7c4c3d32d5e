"""Records and rankings of cells by key, with their sha256. Letters: N test users, K cutoff."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from filelock import FileLock

import schemas
from pipeline import io
from pipeline.benchmark.cell import Cell, Outcome
from pipeline.evaluation.metrics import Evaluation, judge
from pipeline.interactions.split import Split


@dataclass(frozen=True)
class Record:
    """Outcome of a cell's training."""

    key: str
    values: dict[str, Any]  # as `Outcome.values`
    rankings: dict[str, Path]  # suffix of a protocol -> table rankings(K)

    @property
    def best(self) -> dict[str, Any]:
        """The history's line of the best epoch."""
        return dict(self.values["best"])

    @property
    def judged(self) -> list[dict[str, Any]]:
        return list(self.values["judged"])

    def evaluation(self, suffix: str, split: Split, ks: Sequence[int]) -> Evaluation:
        return evaluated(self.rankings[suffix], split, ks)


def evaluated(path: Path, split: Split, ks: Sequence[int]) -> Evaluation:
    with pq.ParquetFile(path) as file:
        width = file.schema_arrow.field("items").type.list_size
    table = io.read_table(path, schemas.rankings(width))
    top = table["items"].combine_chunks().flatten().to_numpy().reshape(-1, width)
    return judge(top, table["user_id"].to_numpy(), split.test, split.n_items, ks)


class Store:
    """A folder of records, and further ones to read.

    An altered or truncated record, or one whose rankings differ, counts as absent. Other code, data or protocol gives
    another key.
    """

    def __init__(self, folder: Path, *others: Path) -> None:
        self.folder, self.others = folder, others
        self.doubted: set[Path] = set()  # records that were not believed

    def get(self, cell: Cell) -> Record | None:
        """Return the record of a cell; None without an intact one."""
        return next((r for folder in (self.folder, *self.others) if (r := self._read(folder, cell.key))), None)

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        return [cell for cell in {cell.key: cell for cell in cells}.values() if self.get(cell) is None]

    def put(self, cell: Cell, outcome: Outcome) -> None:
        digests = {}
        for suffix, table in outcome.rankings.items():
            path = self.folder / f"{cell.key}{suffix}.parquet"
            io.write_table(table, path, schemas.rankings(max(cell.ks)))
            digests[suffix] = io.sha256(path)
        values = {"key": cell.key, "cell": cell.facts, **outcome.values, "rankings": digests}
        values = json.loads(json.dumps(values))  # as it will be read
        io.write_json(self.folder / f"{cell.key}.json", values | {"sha256": record_digest(values)})

    @contextmanager
    def claimed(self, cell: Cell) -> Iterator[None]:
        """Lock a cell against other processes; a killed process releases it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / f".{cell.key}.lock"
        with FileLock(lock):
            yield
            lock.unlink(missing_ok=True)  # who waits for it finds the record

    def files(self, cells: Iterable[Cell]) -> list[Path]:
        records = [record for cell in cells if (record := self._read(self.folder, cell.key))]
        return [path for one in records for path in (self.folder / f"{one.key}.json", *one.rankings.values())]

    def _read(self, folder: Path, key: str) -> Record | None:
        path = folder / f"{key}.json"
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_bytes())
            digest, files = values.pop("sha256"), {s: folder / f"{key}{s}.parquet" for s in values["rankings"]}
            digests = {suffix: io.sha256(file) for suffix, file in files.items()}
            if values["key"] == key and digest == record_digest(values) and digests == values["rankings"]:
                return Record(key, values, files)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
            pass  # not written by `put`
        self.doubted.add(path)
        return None


def record_digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
