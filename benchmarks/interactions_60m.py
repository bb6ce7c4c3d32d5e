"""Sixty million generated ratings -> 5-core, ids, split, in files, within 3 GiB of memory; six million beside them.

The process is held to 3 GiB by a memory cgroup where this machine lets us make one (Linux, as root): resident memory
and files' cached pages count, of which the kernel takes the pages back. Elsewhere only its resident size is measured. A
limit on reserved memory (RLIMIT_AS, RLIMIT_DATA) says little: the allocator reserves about twice of what it uses.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import Measurement

MILLION = 1_000_000
SMALL, LARGE = 6, 60  # million ratings
CAP = 3 << 30  # bytes
DUCKDB = "2GiB"  # the rest of the process takes half a GiB
GROUPS = {"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"}
"""where control groups of version 1 and 2 are made -> the file of a group that holds its limit"""


def run() -> Measurement:
    """Make and split the two files, one after the other; the disk needs 12 GiB."""
    seconds: dict[int, float] = {}
    details: dict[str, Any] = {}
    for millions in (SMALL, LARGE):
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder)
            make(raw / "ratings.csv", millions * MILLION)
            seconds[millions], facts = _alone(raw)
            details[f"{millions}M"] = {"seconds": seconds[millions]} | facts
            limit = _scan(raw / "ratings.csv")
    return Measurement(
        ours=seconds[LARGE],
        reference=seconds[SMALL] * LARGE / SMALL,
        unit="s",
        higher_is_better=False,
        limit=limit,
        limit_is="DuckDB counting the file's lines on all cores",
        what="60 million ratings -> 5-core, ids, split, Parquet; the reference is ten times 6 million's",
        details=details,
    )


def make(path: Path, ratings: int) -> None:
    """Write ratings whose users and products have Baby's long tails, in numbers that grow with the ratings."""
    users, products = int(0.581 * ratings), int(0.0704 * ratings)
    draw = "(hash(i, {}) / 18446744073709551616.0)"  # uniform in [0, 1)
    rank = "((" + draw + " ** {} * {})::BIGINT * 2654435761 % {})"  # rank^-power, ranks scattered
    with duckdb.connect() as db:
        db.execute(
            f"""COPY (SELECT format('A{{:013d}}', {rank.format(1, 1 / 0.45, users, users)}),
                             format('B{{:09d}}', {rank.format(2, 1 / 0.25, products, products)}),
                             1 + floor(5 * {draw.format(3)})::INTEGER, 1000000000 + hash(i, 4) % 400000000
                      FROM range({ratings}) r(i)) TO '{path}' (HEADER false)"""
        )


@contextmanager
def _capped() -> Iterator[Path | None]:
    """Make a control group of CAP bytes of memory, joined by writing to the file yielded; None if it cannot be made."""
    for root, limit in GROUPS.items():
        group = Path(root) / f"alignrec-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            with (group / limit).open("r+") as f:  # absent where memory is not controlled
                f.write(str(CAP))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group / "cgroup.procs"
        finally:
            group.rmdir()
        return
    yield None


def _alone(raw: Path) -> tuple[float, dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with _capped() as group:
        process = context.Process(target=_work, args=(raw, group, theirs))
        process.start()
        theirs.close()
        found: tuple[float, dict[str, Any]] = ours.recv()  # EOFError: the kernel killed it
        process.join()
    return found


def _work(raw: Path, group: Path | None, to: multiprocessing.connection.Connection) -> None:
    if group:
        group.write_text(str(os.getpid()))
    import schemas
    from pipeline import io
    from pipeline.config import Interactions
    from pipeline.interactions import build
    from pipeline.sources import amazon2014

    started, params = time.perf_counter(), Interactions(memory_limit=DUCKDB)
    with build.database(raw / "scratch", params.memory_limit) as db:
        split = build.split(db, amazon2014.ratings({"reviews": raw / "ratings.csv"}), 5, 5, params.protocol, 0)
        io.write_tables(split.users, raw / "users.parquet", schemas.USERS, {})
        io.write_tables(split.item_ids, raw / "item_ids.parquet", schemas.ITEM_IDS, {})
        io.write_tables(split.interactions, raw / "interactions.parquet", schemas.INTERACTIONS, {})
    seconds = round(time.perf_counter() - started, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    facts = {"cpu_seconds": round(time.process_time(), 1), "peak_mib": peak, "capped": group is not None}
    to.send((seconds, facts | {"kept": split.rows - sum(split.drops.values())} | split.facts))


def _scan(path: Path) -> float:
    started = time.perf_counter()
    with duckdb.connect() as db:
        whole = "header=false, auto_detect=false, delim='|', columns={'line': 'VARCHAR'}"
        db.execute(f"SELECT count(*) FROM read_csv('{path}', {whole})")
    return round(time.perf_counter() - started, 2)
