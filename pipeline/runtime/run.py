"""Runs of stages: they validate tables, write a run record and lock outputs."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm import tqdm

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.runtime import code, process, progress
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.machine import describe_machine, versions
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.record import intact_record, present_files, record_digest
from alignrec.pipeline.runtime.seeds import seed_for

ALTERED = "was altered after it was made; it is made again"
MAX_SECONDS_LOCKED = 3600  # wait for another run of the same folder


@dataclass(eq=False)
class Run:
    """A run of a stage on a dataset, or on an item of its matrix."""

    stage: str
    dataset: str
    params: Parameters
    root: InitVar[Path]
    item: str = ""
    label: str = ""

    # facts of run.json, equal for equal runs
    device: str = "cpu"
    rows_in: int = 0
    rows_out: int = 0
    drops: Counter[str] = field(default_factory=Counter)  # reason -> rows
    notes: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # facts of cost.json, which differ between equal runs
    measured: dict[str, Any] = field(default_factory=dict)

    bars: list[tqdm] = field(default_factory=list)
    # whether the work folder was already complete, so that its record is kept
    was_finished: bool = False

    def __post_init__(self, root: Path) -> None:
        self.layout = Layout(root, self.dataset, (self.stage, self.item))
        self.folder = self.layout.work(self.stage, self.item)
        self.out = self.layout.out(self.stage, self.item)
        self.source = self.params.source(self.dataset)
        self.label = self.label or " ".join(filter(None, (self.stage, self.dataset, self.item)))

    def seed(self, *names: str | int) -> int:
        """Return the seed of a component of this stage, derived from the `seed` of its section."""
        base = getattr(self.params.section(self.stage), "seed", 0)
        return seed_for(self.stage, self.dataset, *names, base)

    def write(self, table: pa.Table, path: Path, schema: pa.Schema, **facts: Any) -> None:
        io.write_table(table, path, schema, self.record() | facts)

    def write_all(
        self, tables: Iterable[pa.Table], path: Path, schema: pa.Schema, **facts: Any
    ) -> None:
        io.write_tables(tables, path, schema, self.record() | facts)

    def record(self) -> dict[str, Any]:
        """Return the provenance of a file, which is the same for equal runs."""
        facts = self.params.section(self.stage).facts()
        return {
            "stage": self.stage,
            "dataset": self.dataset,
            "params": facts,
            "versions": versions(),
        }

    def count(self, reason: str, n: int = 1) -> None:
        if n:
            self.drops[reason] += n

    def warn(self, message: str, recorded: bool = True) -> None:
        """Print a warning of one line; `recorded` in run.json too, if equal runs repeat it."""
        if recorded:
            self.warnings.append(message)
        print(printable(f"warning: {self.label}: {message}"), file=sys.stderr, flush=True)

    def note(self, **facts: Any) -> None:
        """Add facts that are the same in equal runs (accuracies, counts) to run.json."""
        self.notes |= facts

    def measure(self, **facts: Any) -> None:
        """Add facts that differ between equal runs (rates, local paths) to cost.json."""
        self.measured |= facts

    def progress(
        self, iterable: Iterable[Any] | None = None, what: str = "", **options: Any
    ) -> tqdm:
        """Return a progress bar with options of tqdm.

        Without a terminal it is printed as a line per minute.
        """
        label = f"{self.label} {what}".rstrip()
        is_hidden = bool(process.rank())
        bar = progress.stage_bar(label, is_hidden, iterable=iterable, **options)
        self.bars.append(bar)
        return bar

    @staticmethod
    def key(files: Iterable[Path], facts: Any, modules: Sequence[str]) -> str:
        """Return the sha256 of files, facts (JSON), versions and the code of modules."""
        parts = [code.fingerprint(*modules), io.digest(files), facts, versions()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def resume(
        self, folder: Path, inputs: Iterable[Path], *facts: Any, modules: Sequence[str] = ()
    ) -> None:
        """Empty a folder unless inputs, facts (JSON), versions and code are unchanged."""
        io.open_journal(
            folder, self.key(inputs, facts, modules or [f"alignrec.stages.{self.stage}"])
        )
        self.drop_altered(folder)

    def drop_altered(self, folder: Path) -> None:
        for path in io.drop_unlisted(folder):
            self.warn(f"{path} {ALTERED}", recorded=False)

    def finished(self) -> bool:
        record = intact_record(self.folder)
        self.was_finished = record is not None and record["files"] == present_files(self.folder)
        return self.was_finished


@contextmanager
def running(
    stage: str, dataset: str, params: Parameters, root: Path, item: str = ""
) -> Iterator[Run]:
    run = Run(stage, dataset, params, root, item)
    with locked(run), recorded(run):
        yield run


@contextmanager
def locked(run: Run) -> Iterator[None]:
    if process.world() > 1 and run.stage != "pretrain":
        raise UserError(
            f"{run.stage} runs in one process; only pretrain can be started by torchrun"
        )
    if process.rank():
        yield
        return
    refuse_links(run)
    with hold_lock(run.folder):
        make_folder(run.folder)
        yield


def make_folder(folder: Path) -> None:
    """Make a work folder; delete what an earlier run cannot have left there."""
    if not folder.is_dir():
        io.remove(folder)
    folder.mkdir(exist_ok=True)
    io.unlink_special(folder)


def refuse_links(run: Run) -> None:
    """Raise UserError if the way to the work folder or to the output leads out of the project."""
    for folder in (run.folder, run.out):
        io.refuse_links(folder, run.layout.root)


@contextmanager
def recorded(run: Run) -> Iterator[None]:
    if process.rank():
        yield
        return

    # remove temporary files of a killed run
    for scrap in run.folder.rglob(".*.tmp"):
        scrap.unlink(missing_ok=True)

    started = time.perf_counter()
    with progress.print_heartbeat(run.label, run.bars), process.watch_memory() as memory:
        yield

    # nothing was computed, so keep the first run's record: the output stays byte-identical
    if run.was_finished:
        _deliver_out(run)
        print(f"{run.label}: all that it makes is there, and is kept", flush=True)
        return

    record = _run_record(run)
    io.refuse_altered({run.folder / name: digest for name, digest in record["files"].items()})

    # time and memory differ between equal runs, so they are not part of the record, which DVC
    # hashes
    seconds = time.perf_counter() - started
    cost = {
        "seconds": round(seconds, 3),
        "peak_memory_mib": process.peak_mib() + process.largest_child_mib()
        or None,  # None: Windows
        "own_memory_mib": memory.mib,
        "measured": run.measured,
    }
    io.write_json(run.folder / io.COST, cost)
    io.write_json(run.folder / io.RECORD, record | {"sha256": record_digest(record)})
    _deliver_out(run)
    print(f"{run.stage} {run.dataset}: {_summarise_rows(run)}; {seconds:.1f} s", flush=True)


def _summarise_rows(run: Run) -> str:
    counts = [f"{run.rows_in:,} rows in", f"{run.rows_out:,} out"]
    for reason, rows in sorted(run.drops.items()):
        counts.append(f"{rows:,} {reason.replace('_', ' ')}")
    return ", ".join(counts)


def _deliver_out(run: Run) -> None:
    """Replace the output folder by hard links to the work folder."""
    new = run.folder.with_name(f".{run.folder.name}.new")
    old = run.folder.with_name(f".{run.folder.name}.old")
    for folder in (new, old):
        io.remove(folder)

    # hard links take no disk space
    for path in [*io.files_below(run.folder), run.folder / io.RECORD]:
        io.link(path, new / path.relative_to(run.folder))

    # renames never leave an incomplete output: after a kill between them there is none, and the
    # stage runs again
    run.out.parent.mkdir(parents=True, exist_ok=True)
    if run.out.exists():
        io.rename_folder(run.out, old)
    io.rename_folder(new, run.out)
    io.remove(old)


def _run_record(run: Run) -> dict[str, Any]:
    section = run.params.section(run.stage)
    warnings = {"warnings": run.warnings} if run.warnings else {}
    record = {
        "stage": run.stage,
        "dataset": run.dataset,
        "rows_in": run.rows_in,
        "rows_out": run.rows_out,
        "drops": dict(sorted(run.drops.items())),
        "device": run.device,
        "machine": describe_machine(run.device),
        "seed": getattr(section, "seed", None),
        "params": section.facts(),
        "versions": versions(),
        "notes": run.notes | warnings,
        "files": present_files(run.folder),
    }
    return dict(json.loads(json.dumps(record, allow_nan=False)))


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    path_of_lock = folder.with_name(f".{folder.name}.lock")
    if path_of_lock.is_symlink():  # a lock is emptied when it is taken
        path_of_lock.unlink()
    lock = FileLock(path_of_lock)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: another run is writing here; waiting for it to end", file=sys.stderr)
        try:
            lock.acquire(timeout=MAX_SECONDS_LOCKED)
        except Timeout:
            raise UserError(
                f"{folder}: another run has held this folder for an hour; stop it and run again"
            ) from None
    except (PermissionError, FileExistsError, NotADirectoryError) as e:
        path = e.filename or folder.parent
        raise UserError(
            f"{path}: {e.strerror or e}; "
            "give this user access or delete it: unfinished work is made again"
        ) from None
    try:
        yield
    finally:
        lock.release()
