"""Stages and their runs, which validate tables, write a run record and lock outputs against other writers."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm import tqdm

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, printable
from alignrec.pipeline.runtime import code, process, progress
from alignrec.pipeline.runtime.code import describe_machine, versions
from alignrec.pipeline.runtime.config import Parameters, Section
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.registry import Registry
from alignrec.pipeline.runtime.seeds import seed_for

ALTERED = "was altered after it was made; it is made again"
SOURCE = "sources"
FEATURE_SETS = (
    "encode.encoders",
    "beit3",
    "combine",
    SOURCE,
)  # parameters that define the feature sets


class Run:
    """A run of a stage on a dataset (and an item of its matrix), through which the stage reads, writes and counts."""

    def __init__(
        self,
        stage: str,
        dataset: str,
        params: Parameters,
        root: Path,
        item: str = "",
        label: str = "",
    ) -> None:
        self.stage, self.dataset, self.item, self.params = stage, dataset, item, params
        self.layout = Layout(root, dataset, (stage, item))
        self.folder, self.out = self.layout.work(stage, item), self.layout.out(stage, item)
        self.label = label or " ".join(filter(None, (stage, dataset, item)))
        self.source = params.source(dataset)
        self.rows_in = self.rows_out = 0
        self.drops: Counter[str] = Counter()
        self.notes: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.device = "cpu"
        self.bars: list[tqdm] = []
        self.part: tuple[int, int] | None = (
            None  # (i, n), i from 1, if other processes run the other parts
        )
        self.measured: dict[
            str, Any
        ] = {}  # goes to cost.json, so that equal runs give a byte-identical run.json
        self.kept = (
            False  # whether the work folder was already complete, so that its record is kept
        )

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
        """Print a warning of one line and, if equal runs repeat it (`recorded`), write it to run.json."""
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
        """Return a progress bar with options of tqdm; without a terminal it is printed as a line per minute."""
        label, hidden = f"{self.label} {what}".rstrip(), bool(process.rank())
        self.bars.append(progress.stage_bar(label, hidden, iterable=iterable, **options))
        return self.bars[-1]

    @staticmethod
    def key(files: Iterable[Path], facts: Any, modules: Sequence[str]) -> str:
        """Return the sha256 of files, facts (JSON), versions and the code of modules."""
        parts = [code.fingerprint(*modules), io.digest(files), facts, versions()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def resume(
        self, folder: Path, inputs: Iterable[Path], *facts: Any, modules: Sequence[str] = ()
    ) -> None:
        """Empty a folder of unfinished work unless inputs, facts (JSON), versions and code are unchanged."""
        io.begin(folder, self.key(inputs, facts, modules or [f"alignrec.stages.{self.stage}"]))
        if not self.part:  # other parts may still be writing
            self.drop_altered(folder)

    def takes(self, number: int) -> bool:
        return self.part is None or number % self.part[1] == self.part[0] - 1

    def alone(self) -> AbstractContextManager[None]:
        return hold_lock(self.folder) if self.part else nullcontext()

    def drop_altered(self, folder: Path) -> None:
        for path in io.delete_unvouched(folder):
            self.warn(f"{path} {ALTERED}", recorded=False)

    def finished(self) -> bool:
        record = intact_record(self.folder)
        self.kept = record is not None and record["files"] == present_files(self.folder)
        return self.kept


@contextmanager
def running(
    stage: str, dataset: str, params: Parameters, root: Path, item: str = ""
) -> Iterator[Run]:
    run = Run(stage, dataset, params, root, item)
    with locked(run), recorded(run):
        yield run


def quoted_record(layout: Layout, stage: str, item: str = "") -> dict[str, Any]:
    """Return a stage's run.json; UserError if it was edited."""
    if record := intact_record(layout.out(stage, item)):
        return record
    again = " ".join(filter(None, (stage, layout.dataset, item)))
    raise UserError(
        f"{layout.run_record(stage, item)} was edited; run `alignrec {again}`, which makes it again"
    )


def intact_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / io.RECORD).read_bytes())
        digest, files = record.pop("sha256"), record["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if isinstance(files, dict) and digest == record_digest(record) else None


def present_files(folder: Path) -> dict[str, str]:
    """Return path -> sha256 of a stage's files, without its record, hidden files and signatures."""
    files = io.files_below(folder)
    return {
        str(p.relative_to(folder)): digest
        for p, digest in zip(files, io.sha256s(files), strict=True)
    }


@contextmanager
def locked(run: Run) -> Iterator[None]:
    if process.world() > 1 and run.stage != "pretrain":
        raise UserError(
            f"{run.stage} runs in one process; only pretrain can be started by torchrun"
        )
    if process.rank():
        yield
        return
    with hold_lock(run.folder):
        run.folder.mkdir(exist_ok=True)
        yield


@contextmanager
def recorded(run: Run) -> Iterator[None]:
    if process.rank():
        yield
        return
    # remove temporary files of a killed run
    for scrap in run.folder.rglob(".*.tmp"):
        scrap.unlink(missing_ok=True)
    started = time.perf_counter()
    with progress.print_heartbeat(run.label, run.bars), process.watch_memory() as own:
        yield
    # nothing was computed, so keep the first run's record: the output stays byte-identical
    if run.kept:
        _deliver_out(run)
        print(f"{run.label}: all that it makes is there, and is kept", flush=True)
        return
    # time and memory differ between equal runs, so they are not part of the record, which DVC hashes
    cost = {
        "seconds": round(time.perf_counter() - started, 3),
        "peak_memory_mib": process.peak_mib() + process.largest_child_mib()
        or None,  # None: Windows
        "own_memory_mib": own.mib,
        "measured": run.measured,
    }
    record = _run_record(run)
    io.write_json(run.folder / io.COST, cost)
    io.write_json(run.folder / io.RECORD, record | {"sha256": record_digest(record)})
    _deliver_out(run)
    drops = "".join(f", {n:,} {reason.replace('_', ' ')}" for reason, n in record["drops"].items())
    counts = f"{run.rows_in:,} rows in, {run.rows_out:,} out{drops}"
    print(f"{run.stage} {run.dataset}: {counts}; {cost['seconds']:.1f} s", flush=True)


def _deliver_out(run: Run) -> None:
    """Replace the output folder by hard links to the work folder."""
    new, old = (run.folder.with_name(f".{run.folder.name}.{which}") for which in ("new", "old"))
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    # hard links take no disk space
    for path in [*io.files_below(run.folder), run.folder / io.RECORD]:
        io.link(path, new / path.relative_to(run.folder))
    run.out.parent.mkdir(parents=True, exist_ok=True)
    # renames never leave an incomplete output: after a kill between them there is none, and the stage runs again
    if run.out.exists():
        run.out.rename(old)
    new.rename(run.out)
    shutil.rmtree(old, ignore_errors=True)


def _run_record(run: Run) -> dict[str, Any]:
    section = run.params.section(run.stage)
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
        "notes": run.notes | ({"warnings": run.warnings} if run.warnings else {}),
        "files": present_files(run.folder),
    }
    return dict(json.loads(json.dumps(record, allow_nan=False)))


def record_digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: another run is writing here; waiting for it to end", file=sys.stderr)
        try:
            lock.acquire(timeout=3600)
        except Timeout:
            raise UserError(
                f"{folder}: another run has held this folder for an hour; stop it and run again"
            ) from None
    except (PermissionError, FileExistsError, NotADirectoryError) as e:
        where = f"{e.filename or folder.parent}: {e.strerror or e}"
        raise UserError(
            f"{where}; give this user access or delete it: unfinished work is made again"
        ) from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage; its file, command, section of parameters and output folder share its name."""

    name: str
    does: str  # short description for --help, `dvc stage list` and the docs
    writes: str  # description of its files for the docs, as Markdown
    params: type[Section]
    main: Callable[[Run], None]
    reads: tuple[Stage, ...] = ()  # stages whose files it reads
    # parameters besides its own section: a section, a key such as "train.features", or SOURCE for the dataset's source
    sections: tuple[str, ...] = ()
    loads: tuple[Registry[Any], ...] = ()  # registries of parts that it loads by name
    light: bool = (
        False  # starts without torch: settings of models and encoders were validated by `download`
    )
    resumes: bool = False  # resumes unfinished work, which is deleted for other stages
    # matrix key besides the dataset, such as "encoder": one run for each of `<name>.<per>s` in params.yaml
    per: str = ""

    def before(self) -> list[str]:
        return list(
            dict.fromkeys(name for stage in self.reads for name in (*stage.before(), stage.name))
        )

    def folders(self, layout: Layout) -> list[Path]:
        """Return its output folders: one, or one for each item of `per`."""
        folder = layout.out(self.name)
        return sorted(folder.glob("*/")) if self.per else [folder]

    def modules(self) -> list[str]:
        parts = [registry.module(name) for registry in self.loads for name in registry.built_in]
        return [f"alignrec.stages.{self.name}", *dict.fromkeys(parts)]


def perform(run: Run, stage: Stage, check: Callable[[Run], None]) -> None:
    """Validate parameters and inputs of a stage, then run it."""
    if run.part:
        check(run)
        refuse_altered(run.layout, stage.reads, stage.name)
        part, parts = run.part
        # lock the part only, against a resubmitted job: other parts write to the same folder at the same time
        same = run.folder.with_name(f"{run.folder.name}.{part}-{parts}")
        with hold_lock(same), progress.print_heartbeat(run.label, run.bars):
            run.folder.mkdir(exist_ok=True)
            stage.main(run)
        print(
            f"{run.label}: part {part} of {parts} is there; after all parts run it without --part",
            flush=True,
        )
        return
    with process.process_group(), locked(run):
        if not stage.light:
            check(run)
        # hash inputs in one process only
        if not process.rank():
            refuse_altered(run.layout, stage.reads, stage.name)
        # leftovers of an interrupted run must not end up in the output
        if not stage.resumes:
            shutil.rmtree(run.folder)
            run.folder.mkdir()
        with recorded(run):
            stage.main(run)


def refuse_altered(layout: Layout, stages: Iterable[Stage], reader: str) -> None:
    """Hash the outputs of stages; UserError names the first that is altered, so that corruption does not spread."""
    for stage in stages:
        for folder in stage.folders(layout):
            record, present = intact_record(folder), present_files(folder)
            path, files = folder / io.RECORD, record["files"] if record else {}
            altered = [
                name
                for name in sorted(files.keys() | present.keys())
                if files.get(name) != present.get(name)
            ]
            if not altered:  # empty folders are reported by the stages that need them
                continue
            if record is None:
                fault = (
                    f"{path} was edited"
                    if path.exists()
                    else f"{folder}: {stage.name} has not ended"
                )
            elif altered[0] not in files:
                raise UserError(
                    f"{folder / altered[0]} is of no stage, and {reader} reads it; delete it"
                )
            else:
                what = "is not as it was made" if altered[0] in present else "is gone"
                fault = f"{folder / altered[0]} {what}"
            again = " ".join([stage.name, *folder.relative_to(layout.root / stage.name).parts])
            raise UserError(
                f"{fault}, and {reader} reads it; run `alignrec {again}`, which makes it again"
            )
