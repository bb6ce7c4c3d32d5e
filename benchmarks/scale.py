"""Amazon Electronics' size: graph, training and full ranking under 4 GiB; each in its own process, as memory counts.

AlignRec takes its whole epoch at both sizes; the other models some steps of theirs, and an epoch is as many times a
step as there are batches: every batch walks the whole graph.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks import Measurement
from pipeline.config import Train
from pipeline.evaluation.metrics import evaluate
from pipeline.graph import neighbours
from pipeline.interactions.split import Pairs, Split
from pipeline.models import MODELS
from pipeline.models.base import Batch, Inputs
from pipeline.ops.allocator import keep_large_buffers
from pipeline.ops.device import gemm_rate
from pipeline.train.sampling import Sampler

WIDTH, K = 768, 10
STEPS = 8
"""batches that are timed of models other than AlignRec, after one that is not"""
LIMIT = 4096
"""MiB"""


class Size(NamedTuple):
    """How large a generated data set is."""

    users: int
    items: int
    interactions: int
    """train has 74 % of them, valid 13 %, as the published splits"""


SIZES = {"baby": Size(19_445, 7_050, 160_792), "electronics": Size(192_403, 63_001, 1_689_188)}


def run() -> Measurement:
    """Measure the graph, every model at Electronics' size, and AlignRec at both."""
    with tempfile.TemporaryDirectory() as folder:
        graphs = {size: child("graph", size, folder) for size in SIZES}
        small = child("alignrec", "baby", folder)
        found = {name: child(name, "electronics", folder) for name in MODELS}
    peaks = {name: record["peak_mib"] for name, record in {"graph": graphs["electronics"], **found}.items()}
    too_large = {name: peak for name, peak in peaks.items() if peak > LIMIT}
    if too_large:
        raise RuntimeError(f"more than {LIMIT} MiB: {too_large}")
    size = SIZES["electronics"]
    return Measurement(
        ours=found["alignrec"]["epoch"] / found["alignrec"]["pairs"] * 1e6,
        reference=small["epoch"] / small["pairs"] * 1e6,
        unit="s a million train pairs",
        higher_is_better=False,
        limit=found["alignrec"]["projection_flop"] / gemm_rate("float32", 1.0) * 1e6 / found["alignrec"]["pairs"],
        limit_is="products of the 768-d features alone, three a step, at this machine's float32 GEMM rate",
        what=f"AlignRec on {size.users:,} users, {size.items:,} items, {size.interactions:,} interactions, {WIDTH}-d "
        "features that train; the reference: the same at Baby's size. A step walks the whole graph, so at one batch "
        "size the time a pair grows with the graph",
        details={"graph": graphs, "baby": small, "electronics": found, "threads": torch.get_num_threads()},
    )


def child(work: str, size: str, folder: str) -> dict[str, Any]:
    """Do a part in a process of its own; return its record."""
    command = [sys.executable, "-m", "benchmarks.scale", work, size, folder]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main(work: str, size: str, folder: str) -> None:
    """Print the record of one part: seconds and peak MiB; `folder` keeps the graph between parts."""
    parts, features = generated(SIZES[size])
    edges = Path(folder) / f"{size}.parquet"
    record = _graph(features, edges) if work == "graph" else _model(work, parts, features, pq.read_table(edges))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps(record | {"peak_mib": peak}))


def generated(size: Size) -> tuple[Split, np.ndarray]:
    """Return pairs with long tails on both sides, and features with neighbours in them, float32 [I, 768]."""
    rng = np.random.default_rng(0)
    popular = np.arange(1, size.items + 1) ** -0.7
    users = np.concatenate([np.arange(size.users), (size.users * rng.random(2 * size.interactions) ** 1.5).astype(int)])
    items = np.searchsorted(np.cumsum(popular / popular.sum()), rng.random(len(users))).clip(max=size.items - 1)
    pairs = rng.permutation(np.unique(users * size.items + items))[: size.interactions]
    train, valid, _ = np.split(pairs, [int(0.74 * len(pairs)), int(0.87 * len(pairs))])
    known = np.unique(train // size.items)
    valid = valid[np.isin(valid // size.items, known)]
    made = [Pairs((k // size.items).astype("i4"), (k % size.items).astype("i4")) for k in map(np.sort, (train, valid))]
    features = rng.standard_normal((size.items, WIDTH), np.float32)
    features += rng.standard_normal((500, WIDTH), np.float32)[rng.integers(0, 500, size.items)]
    return Split(size.users, size.items, made[0], made[1], made[1]), features


def _graph(features: np.ndarray, path: Path) -> dict[str, Any]:
    started = time.perf_counter()
    pq.write_table(neighbours.neighbours(features, K), path)
    return {"seconds": time.perf_counter() - started}


def _model(name: str, parts: Split, features: np.ndarray, edges: pa.Table) -> dict[str, Any]:
    """Build, take some steps, rank every user with a valid target."""
    settings = MODELS[name].Params()
    torch.manual_seed(0)
    started = time.perf_counter()
    model = MODELS[name](Inputs(parts, torch.from_numpy(features), edges, torch.device("cpu")), settings)
    record = {"build": time.perf_counter() - started, "pairs": len(parts.train)}
    if list(model.parameters()):
        record |= _steps(model, parts, settings, None if name == "alignrec" else STEPS)
    model.eval()
    started = time.perf_counter()
    with torch.no_grad():
        evaluate(*model(), parts, "valid", [20])
    return record | {"rank": time.perf_counter() - started}


def _steps(model: torch.nn.Module, parts: Split, settings: Train, most: int | None) -> dict[str, Any]:
    """Time an epoch, or `most` of its steps."""
    keep_large_buffers()  # as pipeline.train does
    started = time.perf_counter()
    model.start_epoch()
    drawn = torch.from_numpy(Sampler(parts).epoch(np.random.default_rng(0)))
    before = time.perf_counter() - started
    batches = drawn.split(settings.batch_size, dim=1)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=settings.lr, fused=True)
    timed = batches if most is None else batches[: most + 1]
    for n, batch in enumerate(timed):
        started = time.perf_counter() if n == 1 else started
        loss = torch.stack(list(model.loss(Batch(*batch)).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    step = (time.perf_counter() - started) / max(1, len(timed) - 1)
    flop = len(batches) * 3 * 2 * parts.n_items * WIDTH * settings.dim
    found = {"steps": len(timed), "step": step, "epoch": before + step * len(batches)}
    return {"before_an_epoch": before, **found, "projection_flop": flop}


if __name__ == "__main__":
    main(*sys.argv[1:])
