"""Sixty million generated ratings -> 5-core, ids, split, and how much memory they take; six million beside them.

DuckDB is held to `interactions.memory_limit`; what counts is the largest resident size. A limit on reserved memory
(RLIMIT_AS, RLIMIT_DATA) says little: the allocator reserves about twice of what it uses.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import Measurement

MILLION = 1_000_000
SMALL, LARGE = 6, 60  # million ratings


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
        what="60 million ratings -> 5-core, ids, split; the reference is ten times 6 million's",
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


def _alone(raw: Path) -> tuple[float, dict[str, int]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(raw, theirs))
    process.start()
    theirs.close()
    found: tuple[float, dict[str, int]] = ours.recv()
    process.join()
    return found


def _work(raw: Path, to: multiprocessing.connection.Connection) -> None:
    from pipeline import interactions
    from pipeline.config import Interactions
    from pipeline.sources import amazon2014

    started, params = time.perf_counter(), Interactions()
    with interactions.database(raw / "scratch", params.memory_limit) as db:
        split = interactions.split(db, amazon2014.ratings({"reviews": raw / "ratings.csv"}), 5, 5, params.protocol, 0)
    seconds = round(time.perf_counter() - started, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    to.send((seconds, {"peak_mib": peak, "kept": len(split.interactions), "users": len(split.users)}))


def _scan(path: Path) -> float:
    started = time.perf_counter()
    with duckdb.connect() as db:
        whole = "header=false, auto_detect=false, delim='|', columns={'line': 'VARCHAR'}"
        db.execute(f"SELECT count(*) FROM read_csv('{path}', {whole})")
    return round(time.perf_counter() - started, 2)
