"""Sixty million generated ratings -> 5-core, ids, split, in files, within 3 GiB of memory; six million next to them.

The process is held to 3 GiB by a memory cgroup where this machine lets us make one (Linux, as root): resident memory
and files' cached pages count, of which the kernel takes the pages back. Elsewhere only its resident size is measured. A
limit on reserved memory (RLIMIT_AS, RLIMIT_DATA) says little: the allocator reserves about twice of what it uses.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import Measurement, _turns
from pipeline import memory

MILLION = 1_000_000
SMALL, LARGE = 6, 60  # million ratings
CAP = 3 << 30  # bytes
DUCKDB = "2GiB"  # the rest of the process takes half a GiB
GROUPS = {"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"}
"""where control groups of version 1 and 2 are made -> the file of a group that holds its limit"""


def run() -> Measurement:
    """Make two files, and let them take turns; the disk needs 14 GiB."""
    with tempfile.TemporaryDirectory() as folder:
        raws = {f"{millions}M": Path(folder) / f"{millions}M" for millions in (SMALL, LARGE)}
        for millions, raw in zip((SMALL, LARGE), raws.values(), strict=True):
            raw.mkdir()
            make(raw / "ratings.csv", millions * MILLION)
        work = {f"{millions}M": millions / LARGE for millions in (SMALL, LARGE)}
        ways = _turns.take({name: partial(_capped_turn, raw) for name, raw in raws.items()}, work=work)
        limit = _scan(raws[f"{LARGE}M"] / "ratings.csv")
    return Measurement(
        ways=ways,
        ours=f"{LARGE}M",
        reference=f"{SMALL}M",
        unit=f"s/{LARGE}M ratings",
        higher_is_better=False,
        limit=limit,
        limit_is="DuckDB counting the file's lines on all cores",
        what="60 million ratings -> 5-core, ids, split, Parquet; the reference is 6 million's time, ten times",
        details={name: way.last for name, way in ways.items()},
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


def _capped_turn(raw: Path) -> _turns.Turn[dict[str, Any]]:
    with _capped() as group:
        return _turns.alone(_turn, raw, group)  # BrokenProcessPool: the kernel killed it


def _turn(raw: Path, group: Path | None) -> _turns.Turn[dict[str, Any]]:
    """Do what the interactions stage does; imports count for memory, not for time."""
    if group:
        group.write_text(str(os.getpid()))
    import schemas
    from pipeline import io
    from pipeline.interactions import build
    from pipeline.interactions.division import Division
    from pipeline.interactions.params import Interactions
    from pipeline.sources import amazon2014

    def split() -> dict[str, Any]:
        params = Interactions(memory_limit=DUCKDB)
        with build.database(raw / "scratch", params.memory_limit) as db:
            ratings = amazon2014.ratings({"reviews": raw / "ratings.csv"})
            tables = build.split(db, ratings, 5, 5, Division(params.protocol))
            io.write_tables(tables.users, raw / "users.parquet", schemas.USERS, {})
            io.write_tables(tables.item_ids, raw / "item_ids.parquet", schemas.ITEM_IDS, {})
            io.write_tables(tables.interactions, raw / "interactions.parquet", schemas.INTERACTIONS, {})
        return {"kept": tables.rows - sum(tables.drops.values())} | tables.facts

    turn = _turns.timed(split)
    return turn.giving(turn.result | {"peak_mib": memory.peak_mib(), "capped": group is not None})


def _scan(path: Path) -> float:
    started = time.perf_counter()
    with duckdb.connect() as db:
        whole = "header=false, auto_detect=false, delim='|', columns={'line': 'VARCHAR'}"
        db.execute(f"SELECT count(*) FROM read_csv('{path}', {whole})")
    return time.perf_counter() - started
