"""The stage harness: parameters in, checked tables in and out, one run record, one writer at a time."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm import tqdm

from pipeline import code, io, parallel, progress
from pipeline.errors import UserError, one_line, printable
from pipeline.layout import STAGES, Layout
from pipeline.params import Params
from pipeline.seeds import seed_for

LIBRARIES = ("torch", "faiss-cpu", "faiss-gpu-cu12", "duckdb", "pyarrow", "numpy", "scipy", "pillow", "simplejpeg",
             "transformers", "sentencepiece", "open_clip_torch")  # fmt: skip

ALTERED = "was altered after it was made; it is made again"


class Needs(NamedTuple):
    """What a result depends on: the arguments of `Run.key`."""

    files: list[Path]
    facts: list[Any]
    """parameters, anything JSON"""
    modules: list[str]
    """whose code the result depends on"""


class Run:
    """One run of one stage on one dataset. Stages read, write, count and show progress through it."""

    def __init__(
        self, stage: str, dataset: str, params: Params, root: Path, layout: Layout | None = None, label: str = ""
    ) -> None:
        self.stage, self.dataset, self.params = stage, dataset, params
        self.layout = layout or Layout(root, dataset)
        self.label = label or f"{stage} {dataset}"
        self.folder = self.layout.folder(stage)
        self.source = params.source(dataset)
        self.rows_in = self.rows_out = 0
        self.drops: Counter[str] = Counter()
        self.notes: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.device = "cpu"
        self.bars: list[tqdm] = []

    def within(self, stage: str, params: Params, layout: Layout, label: str) -> Run:
        """Return a run of another stage inside this one: its seeds are that stage's, its progress is shown here.

        Args:
            stage: whose seeds and record it has.
            params: of the inner run.
            layout: where its files are.
            label: names it in progress and warnings.
        """
        inner = Run(stage, self.dataset, params, layout.root, layout, f"{self.label} {label}")
        inner.bars = self.bars
        return inner

    def seed(self, *names: str | int) -> int:
        """Return the seed of a part of this stage; `seed` of the stage's section shifts all of them."""
        base = getattr(getattr(self.params, self.stage), "seed", 0)
        return seed_for(self.stage, self.dataset, *names, base)

    def read(self, path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
        """Read and check one Parquet file."""
        return io.read_table(path, schema, columns)

    def write(self, table: pa.Table, path: Path, schema: pa.Schema, **facts: Any) -> None:
        """Check and write one Parquet file, with this stage's record and facts about the rows in its metadata."""
        io.write_table(table, path, schema, self.record() | facts)

    def write_all(self, tables: Iterable[pa.Table], path: Path, schema: pa.Schema, **facts: Any) -> None:
        """Do as `write` with a file of many tables, holding one at a time."""
        io.write_tables(tables, path, schema, self.record() | facts)

    def record(self) -> dict[str, Any]:
        """Return the provenance of a file: equal for two runs on the same input and code."""
        section = getattr(self.params, self.stage).model_dump()
        return {"stage": self.stage, "dataset": self.dataset, "params": section, "versions": versions()}

    def count(self, reason: str, n: int = 1) -> None:
        """Count `n` rows that were dropped or are incomplete, by reason, into run.json."""
        if n:
            self.drops[reason] += n

    def warn(self, message: str) -> None:
        """Print a warning in one line, and keep it in run.json."""
        self.warnings.append(message)
        print(printable(f"warning: {self.label}: {message}"), file=sys.stderr, flush=True)

    def note(self, **facts: Any) -> None:
        """Add measured facts (rates, accuracies) to run.json."""
        self.notes |= facts

    def progress(
        self,
        iterable: Iterable[Any] | None = None,
        total: int | None = None,
        unit: str = "it",
        what: str = "",
        initial: int = 0,
    ) -> tqdm:
        """Return a progress bar with rate and ETA; where stderr is no terminal, a line a minute says the same."""
        label = f"{self.label}{' ' + what if what else ''}"
        options = {"iterable": iterable, "total": total, "unit": unit, "initial": initial}
        self.bars.append(progress.bar(label, hidden=bool(parallel.rank()), **options))
        return self.bars[-1]

    def key(self, files: Iterable[Path], facts: Any, modules: Sequence[str]) -> str:
        """Return the sha256 of all that a result depends on: contents of files, parameters, versions, and code.

        Args:
            files: that are read, in a defined order.
            facts: anything JSON: parameters, names, seeds.
            modules: whose code the result depends on.
        """
        parts = [code.fingerprint(*modules), io.digest(files), facts, versions()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def resume(self, folder: Path, inputs: Iterable[Path], *facts: Any, modules: Sequence[str] = ()) -> None:
        """Keep `folder`'s content if it was begun with the same inputs, facts, versions and code; else empty it.

        Files that are not as they were written are deleted, so that they are made again, and a line says so.

        Args:
            folder: the stage's folder or a part of it that is resumed by itself.
            inputs: files that the content depends on; hashed.
            facts: anything JSON that it depends on: parameters, names, seeds.
            modules: whose code the content depends on; the stage's own by default.
        """
        key = self.key(inputs, facts, modules or [f"stages.{self.stage}"])
        if not io.begun(folder, key):
            io.begin(folder, key)
        self.drop_altered(folder)

    def drop_altered(self, folder: Path) -> None:
        """Delete the files of a folder that was begun by `resume` which are not as they were written."""
        if not (folder / io.JOURNAL).is_file():
            return
        for path in io.delete_unvouched(folder):
            self.warn(f"{path} {ALTERED}")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, of alignrec and of the libraries that results depend on."""
    installed = {"python": platform.python_version()}
    for name in ("alignrec", *LIBRARIES):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def machine(device: str) -> str:
    """Return the kind of machine without its name: system, processor, cores, and the GPU if one was used."""
    cpu = platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    description = f"{platform.system()}, {cpu}, {os.cpu_count()} cores"
    if device.startswith("cuda"):
        import torch  # already loaded by the code that used the GPU

        description += f", {torch.cuda.get_device_name(device)}"
    return description


@contextmanager
def running(stage: str, dataset: str, params: Params, root: Path) -> Iterator[Run]:
    """Hold the stage's lock, yield its Run, and write run.json when the block ends without an error."""
    run = Run(stage, dataset, params, root)
    with _locked(run), _recorded(run):
        yield run


def perform(
    run: Run,
    needs: Callable[[Run], tuple[list[Path], Any, list[str]]],
    check: Callable[[Run], None],
    main: Callable[[Run], None],
) -> bool:
    """Run a stage, unless it is done with the same needs and its files are unchanged.

    Args:
        run: the stage.
        needs: returns the three arguments of `Run.key`.
        check: refuses parameters; called before a stage that is run.
        main: makes the stage's files.

    Returns:
        whether it was run.
    """
    seal, record = run.layout.seal(run.stage), run.layout.run_record(run.stage)

    def done() -> bool:
        return seal.is_file() and record.is_file() and seal.read_bytes() == _seal(run, run.key(*needs(run)))

    with parallel.group(), _locked(run):
        if parallel.agreed(done):
            return False
        check(run)
        key = run.key(*needs(run))
        if not parallel.rank():
            _delete_altered(run)
        with _recorded(run), _blaming_inputs(run):
            main(run)
        if not parallel.rank():
            io.write_bytes(seal, _seal(run, key))
    return True


def _seal(run: Run, key: str) -> bytes:
    """Return the content of `Layout.seal` for the stage's present files."""
    files = run.layout.outputs(run.stage)
    digests = {str(p.relative_to(run.folder)): h for p, h in zip(files, io.sha256s(files), strict=True)}
    return json.dumps({"key": key, "files": digests}, indent=1).encode()


def _delete_altered(run: Run) -> None:
    """Delete the files that differ from what the stage left when it ended, so that they are made again."""
    for path in _altered(run.layout, run.stage):
        if path.exists():
            path.unlink()
            run.warn(f"{path} {ALTERED}")


def _altered(layout: Layout, stage: str) -> list[Path]:
    """Return the files of a finished stage that differ from what it left or are gone, sorted."""
    try:
        sealed = json.loads(layout.seal(stage).read_bytes())["files"].items()
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return []
    files = layout.outputs(stage)
    present = dict(zip(files, io.sha256s(files), strict=True))
    folder = layout.folder(stage)
    return sorted(folder / name for name, digest in sealed if present.get(folder / name) != digest)


@contextmanager
def _blaming_inputs(run: Run) -> Iterator[None]:
    """Where a stage fails, say so if a file that it may have read is not as an earlier stage left it."""
    try:
        yield
    except Exception as e:
        altered = ((stage, path) for stage in STAGES[run.stage].reads for path in _altered(run.layout, stage))
        if (first := next(altered, None)) is None:
            raise
        stage, path = first
        what = "was altered after it was made" if path.exists() else "is gone"
        raise UserError(
            f"{path} {what}, and {run.stage} failed ({one_line(e)}); "
            f"run `alignrec {stage} {run.dataset}`, which makes it again"
        ) from e


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Hold the stage's lock; rank 0 holds it for all ranks."""
    if parallel.world() > 1 and run.stage != "pretrain":
        raise UserError(f"{run.stage} runs in one process; only pretrain can be started by torchrun")
    if parallel.rank():
        yield
        return
    run.folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(run.folder):
        yield


@contextmanager
def _recorded(run: Run) -> Iterator[None]:
    """Delete the marks of a finished stage; write its record when the block ends, in rank 0."""
    if parallel.rank():
        yield
        return
    for mark in (run.layout.seal(run.stage), run.layout.run_record(run.stage), *run.folder.rglob(".*.tmp")):
        mark.unlink(missing_ok=True)
    started = time.perf_counter()
    with progress.heartbeat(f"{run.stage} {run.dataset}", run.bars):
        yield
    record = _run_record(run, time.perf_counter() - started)
    io.write_json(run.layout.run_record(run.stage), record)
    print(progress.end_line(record), flush=True)


def _run_record(run: Run, seconds: float) -> dict[str, Any]:
    # ru_maxrss is KiB on Linux, bytes on macOS; the largest child counts, not the sum of children
    unit = 1 if sys.platform == "darwin" else 1024
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "stage": run.stage,
        "dataset": run.dataset,
        "seconds": round(seconds, 3),
        "rows_in": run.rows_in,
        "rows_out": run.rows_out,
        "drops": dict(sorted(run.drops.items())),
        "peak_memory_mib": round(peak * unit / 2**20),
        "device": run.device,
        "machine": machine(run.device),
        "seed": getattr(getattr(run.params, run.stage), "seed", None),
        "params": getattr(run.params, run.stage).model_dump(),
        "versions": versions(),
        "notes": run.notes | ({"warnings": run.warnings} if run.warnings else {}),
    }


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: another run is writing here; waiting for it to end", file=sys.stderr)
        try:
            lock.acquire(timeout=3600)
        except Timeout:
            raise UserError(f"{folder}: another run has held this folder for an hour; stop it and run again") from None
    try:
        yield
    finally:
        lock.release()
