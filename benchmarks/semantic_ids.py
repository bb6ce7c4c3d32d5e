"""Residual k-means of vectors in memory, next to FAISS and the PyPI package semantic-id; and memory of a stream.

semantic-id is no dependency. To have it in the comparison: pip install semantic-id==0.2.5
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

import schemas
from benchmarks import Measurement, _turns
from pipeline import io, memory
from pipeline.ops.device import gemm_rate
from pipeline.ops.rows import unit_rows
from pipeline.semantic_ids import build
from pipeline.semantic_ids.base import Shape, Vectors
from pipeline.semantic_ids.residual_kmeans import ResidualKMeans, ResidualKMeansParams

COMPARED = 50_000  # vectors in memory, which all ways code
STREAMED = (300_000, 1_000_000)
"""vectors in Parquet, more than are learned on, which ours codes in a process of its own"""
SHARD = 50_000  # rows
WIDTH, SHAPE, ITERATIONS, FIT_ROWS = 768, Shape(3, 256), 25, 262_144
BYTES = 100
"""an item beyond those that are learned on: its codes, their groups while collisions are numbered, cosine and suffix"""
LIMIT = 4096  # MiB that the process may take
THEIRS = "semantic-id"


def run() -> Measurement:
    """Code the same vectors in every way; then stream two sizes, of which the larger must stay below the limit."""
    x = generated(0, COMPARED)
    works: dict[str, Callable[[np.ndarray], np.ndarray]] = {"alignrec": ours, "faiss": by_faiss}
    try:
        works[THEIRS] = by_semantic_id
        installed = version(THEIRS)
    except PackageNotFoundError:
        del works[THEIRS]
        installed = "absent: pip install semantic-id==0.2.5"
    ways = _turns.take({name: partial(_turns.timed, work, x) for name, work in works.items()}, work=COMPARED)
    errors = {name: float(((x - way.last) ** 2).sum(axis=1).mean()) for name, way in ways.items()}
    streamed = {n: _streamed(n) for n in STREAMED}
    peak = streamed[STREAMED[-1]]["peak_mib"]
    if peak > LIMIT:
        raise RuntimeError(f"{STREAMED[-1]:,} vectors take {peak:,} MiB, more than {LIMIT:,}")
    return Measurement(
        ways=ways,
        ours="alignrec",
        reference=THEIRS if THEIRS in ways else "faiss",
        unit="items/s",
        higher_is_better=True,
        limit=gemm_rate("float32", 1.0) / (2 * WIDTH * SHAPE.codes * SHAPE.levels),
        limit_is="distances of every vector to every code, once, at this machine's float32 GEMM rate; nothing learned",
        what=f"{SHAPE.levels} x {SHAPE.codes} codes of {COMPARED:,} vectors, {WIDTH}-d, {ITERATIONS} iterations a "
        f"level, one start. Mean squared error: {_listed(errors)}. From Parquet: {_listed(_paper(streamed))}",
        details={"error": errors, "streamed": streamed, "ten_million": _at(10_000_000, streamed), THEIRS: installed},
    )


def ours(x: np.ndarray) -> np.ndarray:
    """Return what the codes of residual k-means stand for, float32 [n, F]."""
    given = Vectors(lambda: (x[at : at + build.ROWS] for at in range(0, len(x), build.ROWS)), len(x), x)
    made = ResidualKMeans.fit(given, SHAPE, ResidualKMeansParams(iterations=ITERATIONS), 0)
    return made.decode(made.assign(given))


def by_faiss(x: np.ndarray) -> np.ndarray:
    """Do the same by FAISS's residual quantiser, greedily as residual k-means does."""
    quantiser = faiss.ResidualQuantizer(WIDTH, SHAPE.levels, SHAPE.codes.bit_length() - 1)
    quantiser.max_beam_size = 1
    quantiser.train_type = faiss.ResidualQuantizer.Train_default
    quantiser.cp.niter = ITERATIONS
    quantiser.train(x)
    return np.asarray(quantiser.decode(quantiser.compute_codes(x)))


def by_semantic_id(x: np.ndarray) -> np.ndarray:
    """Do the same by semantic-id."""
    from semantic_id import RQKMeans  # only here, as it may be absent

    made = RQKMeans(SHAPE.levels, SHAPE.codes, max_iter=ITERATIONS, n_init=1, random_state=0)
    made.fit(x)
    return np.asarray(made.decode(made.encode(x, batch_size=build.ROWS)))


def generated(first: int, n: int) -> np.ndarray:
    """Return vectors of length 1 around 500 directions, float32 [n, F], another part of one endless set."""
    kinds = np.random.default_rng(0).standard_normal((500, WIDTH), np.float32)
    rng = np.random.default_rng([1, first])
    return unit_rows(kinds[rng.integers(0, 500, n)] + rng.standard_normal((n, WIDTH), np.float32))[0]


def _streamed(n: int) -> dict[str, Any]:
    """Write n vectors as a stage does, and code them in a new process."""
    with tempfile.TemporaryDirectory() as name:
        for number, first in enumerate(range(0, n, SHARD)):
            rows = min(SHARD, n - first)
            ids, flags = np.arange(first, first + rows, dtype=np.int32), np.ones(rows, bool)
            columns = [ids, [str(i) for i in ids], flags, flags, io.vectors(generated(first, rows))]
            schema = schemas.features(WIDTH)
            io.write_table(pa.table(columns, schema=schema), io.shard(Path(name), "features", number), schema)
        return dict(_turns.alone(_coded, Path(name)))


def _coded(folder: Path) -> dict[str, Any]:
    """Return seconds, peak MiB and mean cosine of one feature set."""
    turn = _turns.timed(_codes, folder)
    return {"seconds": turn.wall, "cpu_seconds": turn.cpu, "peak_mib": memory.peak_mib(), "cosine": turn.result}


def _codes(folder: Path) -> float:
    given, _ = build.vectors(folder, FIT_ROWS, 0)
    made = ResidualKMeans.fit(given, SHAPE, ResidualKMeansParams(iterations=ITERATIONS), 0)
    return float(build.coded(made, given, "suffix").cosines.mean())


def _at(n: int, streamed: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Return seconds of n vectors, from two sizes by a straight line, and MiB, from the larger by BYTES an item."""
    (few, one), (many, other) = streamed.items()
    share = (n - few) / (many - few)
    line = {key: one[key] + share * (other[key] - one[key]) for key in ("seconds", "cpu_seconds")}
    return line | {"peak_mib": other["peak_mib"] + BYTES * (n - many) / 2**20}


def _paper(streamed: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Return MiB of each size, and of ten million on paper."""
    measured = {f"{n:,} in MiB": facts["peak_mib"] for n, facts in streamed.items()}
    return measured | {"10,000,000 on paper": _at(10_000_000, streamed)["peak_mib"]}


def _listed(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {_turns.short(value)}" for name, value in figures.items())
