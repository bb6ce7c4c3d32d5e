"""Training on ten times Electronics, 17 million interactions, next to Electronics: memory and CPU seconds a pair.

Batches share a walk over the graph, ten times as many of them on ten times the graph, so both take as many steps an
epoch. Features are fixed, and a map of a file. Neighbours of items are drawn within 500 groups: what they are does not
change what they cost. Each size has a process of its own, which builds AlignRec, takes some steps and ranks valid.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks import Measurement, _turns
from benchmarks.electronics import SIZES, WIDTH, K, Size, pairs
from pipeline import memory
from pipeline.interactions.split import Split, asked
from pipeline.models.alignrec import AlignRec, AlignRecParams
from pipeline.models.base import Batch, Inputs
from pipeline.ops.allocator import keep_large_buffers
from pipeline.ops.device import gemm_rate
from pipeline.train.loop import accumulated, ranked
from pipeline.train.sampling import Sampler

STEPS = 2  # that are timed, after one that is not
SMALL, TIMES = SIZES["electronics"], 10
LARGE = Size(*(TIMES * n for n in SMALL))
WAYS = {"1.7 million": (SMALL, 2), "17 million": (LARGE, 2 * TIMES)}  # a size, and how many batches share a walk


def run() -> Measurement:
    """Measure both sizes in turn; the features take 2.1 GB of disk."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (size, _) in WAYS.items():
            write(Path(folder) / name, size.items)
        turns = {name: partial(_turns.alone, _epoch, Path(folder) / name, *way) for name, way in WAYS.items()}
        ways = _turns.take(turns, rounds=1, work={name: size.train / 1e6 for name, (size, _) in WAYS.items()})
    flop = 2 * 2 * LARGE.items * WIDTH * AlignRecParams().dim * ways["17 million"].last["steps"]
    return Measurement(
        ways=ways,
        ours="17 million",
        reference="1.7 million",
        unit="s a million train pairs",
        higher_is_better=False,
        limit=flop / gemm_rate("float32", 1.0) / LARGE.train * 1e6,
        limit_is="products of the features alone, two a step, at this machine's float32 GEMM rate",
        what=f"AlignRec on {LARGE.users:,} users and {LARGE.items:,} items; the reference: a tenth of both",
        details={name: way.last for name, way in ways.items()},
    )


def write(path: Path, items: int) -> None:
    """Write features, float32 [I, WIDTH], a part at a time."""
    rng = np.random.default_rng(0)
    table = np.memmap(path, np.float32, "w+", shape=(items, WIDTH))
    for first in range(0, items, 1 << 16):
        part = table[first : first + (1 << 16)]
        part[:] = rng.standard_normal(part.shape, np.float32)


def neighbours(items: int) -> pa.Table:
    """Return edges, schema EDGES: each item has itself and items of its group."""
    rng = np.random.default_rng(0)
    own = np.arange(items, dtype=np.int32)
    found = (own[:, None] + 500 * rng.integers(0, items // 500, (items, K))) % items
    found[:, 0] = own
    return pa.table(
        {
            "item_id": own.repeat(K),
            "neighbour_id": found.astype(np.int32).ravel(),
            "rank": np.tile(np.arange(K, dtype=np.int16), items),
            "cosine": np.tile(np.linspace(1, 0.5, K, dtype=np.float32), items),
        }
    )


def _epoch(path: Path, size: Size, together: int) -> _turns.Turn[dict[str, Any]]:
    """Return what an epoch takes: its samples, its steps, of which some are taken, and ranking valid."""
    keep_large_buffers()
    parts, _ = pairs(size)
    features = torch.from_numpy(np.memmap(path, np.float32, "c", shape=(size.items, WIDTH)))
    settings = AlignRecParams(mode="frozen", accumulate=together)
    model = AlignRec(Inputs(parts, features, neighbours(size.items), torch.device("cpu")), settings)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
    sampled = _turns.timed(lambda: torch.from_numpy(Sampler(parts).epoch(np.random.default_rng(0))))
    batches = [Batch(*rows) for rows in sampled.result.split(settings.batch_size, dim=1)]

    def step(number: int) -> None:
        optimiser.zero_grad()
        accumulated(model, batches[number * together : (number + 1) * together])
        optimiser.step()

    step(0)
    stepped = _turns.timed(lambda: [step(1 + number) for number in range(STEPS)])
    judged = _turns.timed(_judge, model, parts)
    steps = -(-len(batches) // together)
    wall, cpu = (
        getattr(sampled, s) + getattr(stepped, s) * steps / STEPS + getattr(judged, s) for s in ("wall", "cpu")
    )
    facts = {"steps": steps, "step_cpu": stepped.cpu / STEPS, "samples_cpu": sampled.cpu, "rank_cpu": judged.cpu}
    peak = {"peak_mib": memory.peak_mib(), "features_mib": features.nbytes >> 20, "nodes": size.users + size.items}
    return _turns.Turn(wall, cpu, facts | peak)


@torch.no_grad()
def _judge(model: AlignRec, parts: Split) -> None:
    model.eval()
    ranked(*model(), asked(parts))
