"""Amazon Electronics' size: graph, training and full ranking under 4 GiB; each in its own process, as memory counts.

AlignRec takes its whole epoch at both sizes; the other models some steps of theirs, and an epoch is as many times a
step as there are batches: every batch walks the whole graph.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks import Measurement, _turns
from pipeline import memory
from pipeline.evaluation.metrics import evaluate
from pipeline.graph import neighbours
from pipeline.interactions.split import Pairs, Split
from pipeline.models import MODELS
from pipeline.models.base import Batch, Inputs
from pipeline.models.params import Train
from pipeline.ops.allocator import keep_large_buffers
from pipeline.ops.device import gemm_rate
from pipeline.train.sampling import Sampler

WIDTH, K = 768, 10
STEPS = 8  # batches that are timed of models other than AlignRec, after one that is not
LIMIT = 4096  # MiB


class Size(NamedTuple):
    """How large a generated data set is."""

    users: int
    items: int
    interactions: int  # train has 74 % of them, valid 13 %, as the published splits

    @property
    def train(self) -> int:
        """Return the number of train pairs."""
        return int(0.74 * self.interactions)


SIZES = {"baby": Size(19_445, 7_050, 160_792), "electronics": Size(192_403, 63_001, 1_689_188)}


def run() -> Measurement:
    """Measure AlignRec at both sizes in turn; the graphs, and all other models at Electronics' size, once."""
    size = SIZES["electronics"]
    with tempfile.TemporaryDirectory() as folder:
        edges = {name: Path(folder) / f"{name}.parquet" for name in SIZES}
        graphs = {name: _turns.alone(_graph, SIZES[name], edges[name]) for name in SIZES}
        turns = {name: partial(_turns.alone, _model, "alignrec", SIZES[name], edges[name]) for name in SIZES}
        ways = _turns.take(turns, work={name: SIZES[name].train / 1e6 for name in SIZES})
        others = [name for name in MODELS if name != "alignrec"]
        epochs = {name: _turns.alone(_model, name, size, edges["electronics"]).result for name in others}
    epochs["alignrec"] = ways["electronics"].last
    peaks = {name: record["peak_mib"] for name, record in {"graph": graphs["electronics"], **epochs}.items()}
    too_large = {name: peak for name, peak in peaks.items() if peak > LIMIT}
    if too_large:
        raise RuntimeError(f"more than {LIMIT} MiB: {too_large}")
    return Measurement(
        ways=ways,
        ours="electronics",
        reference="baby",
        unit="s a million train pairs",
        higher_is_better=False,
        limit=epochs["alignrec"]["projection_flop"] / gemm_rate("float32", 1.0) * 1e6 / size.train,
        limit_is="only the products of the 768-d features, three a step, at this machine's float32 GEMM rate",
        what=f"AlignRec on {size.users:,} users, {size.items:,} items, {size.interactions:,} interactions, {WIDTH}-d "
        "features that train; the reference: the same at Baby's size. A step walks the whole graph, so at one batch "
        "size the time a pair grows with the graph",
        details={
            "graph": graphs,
            "baby": ways["baby"].last,
            "electronics": epochs,
            "threads": torch.get_num_threads(),
        },
    )


def generated(size: Size) -> tuple[Split, np.ndarray]:
    """Return pairs with long tails on both sides, and features with neighbours in them, float32 [I, 768]."""
    parts, rng = pairs(size)
    features = rng.standard_normal((size.items, WIDTH), np.float32)
    features += rng.standard_normal((500, WIDTH), np.float32)[rng.integers(0, 500, size.items)]
    return parts, features


def pairs(size: Size) -> tuple[Split, np.random.Generator]:
    """Return pairs with long tails on both sides, and what drew them."""
    rng = np.random.default_rng(0)
    popular = np.arange(1, size.items + 1) ** -0.7
    users = np.concatenate([np.arange(size.users), (size.users * rng.random(2 * size.interactions) ** 1.5).astype(int)])
    items = np.searchsorted(np.cumsum(popular / popular.sum()), rng.random(len(users))).clip(max=size.items - 1)
    drawn = rng.permutation(np.unique(users * size.items + items))[: size.interactions]
    train, valid, _ = np.split(drawn, [size.train, int(0.87 * size.interactions)])
    known = np.unique(train // size.items)
    valid = valid[np.isin(valid // size.items, known)]
    parts = [Pairs((k // size.items).astype("i4"), (k % size.items).astype("i4")) for k in map(np.sort, (train, valid))]
    return Split(size.users, size.items, parts[0], parts[1], parts[1]), rng


def _graph(size: Size, path: Path) -> dict[str, Any]:
    """Write the item graph to `path`; return seconds and peak MiB of this process."""
    _, features = generated(size)
    turn = _turns.timed(lambda: pq.write_table(neighbours.neighbours(features, K), path))
    return {"seconds": turn.wall, "cpu_seconds": turn.cpu, "peak_mib": memory.peak_mib()}


def _model(name: str, size: Size, edges: Path) -> _turns.Turn[dict[str, Any]]:
    """Build, take an epoch's steps or some, rank every user with a valid target; the turn is the epoch."""
    parts, features = generated(size)
    settings = MODELS[name].Params()
    torch.manual_seed(0)
    inputs = Inputs(parts, torch.from_numpy(features), pq.read_table(edges), torch.device("cpu"))
    build = _turns.timed(MODELS[name], inputs, settings)
    model = build.result
    epoch: _turns.Turn[dict[str, Any]] = _turns.Turn(0.0, 0.0, {})
    if list(model.parameters()):
        epoch = _epoch(model, parts, settings, None if name == "alignrec" else STEPS)
    model.eval()
    with torch.no_grad():
        rank = _turns.timed(lambda: evaluate(*model(), parts, "valid", [20]))
    seconds = {"build": build.wall, "epoch": epoch.wall, "rank": rank.wall}
    return epoch.giving(seconds | epoch.result | {"pairs": len(parts.train), "peak_mib": memory.peak_mib()})


def _epoch(model: torch.nn.Module, parts: Split, settings: Train, most: int | None) -> _turns.Turn[dict[str, Any]]:
    """Time what an epoch begins with and its steps, or `most` of them; the first step, which is longer, is left out."""
    keep_large_buffers()  # as pipeline.train does
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=settings.lr, fused=True)

    def begin() -> torch.Tensor:
        model.start_epoch()
        return torch.from_numpy(Sampler(parts).epoch(np.random.default_rng(0)))

    def steps(batches: Sequence[torch.Tensor]) -> None:
        for batch in batches:
            loss = torch.stack(list(model.loss(Batch(*batch)).values())).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    before = _turns.timed(begin)
    batches = before.result.split(settings.batch_size, dim=1)
    steps(batches[:1])
    some = batches[1:] if most is None else batches[1 : most + 1]
    timed, times = _turns.timed(steps, some), len(batches) / len(some)
    flop = len(batches) * 3 * 2 * parts.n_items * WIDTH * settings.dim
    facts = {"before_an_epoch": before.wall, "steps": len(some), "step": timed.wall / len(some)}
    wall, cpu = before.wall + times * timed.wall, before.cpu + times * timed.cpu
    return _turns.Turn(wall, cpu, facts | {"projection_flop": flop})
