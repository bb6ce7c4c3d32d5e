"""Train AlignRec for one epoch at the size of Amazon Baby and rank the validation set, compared with plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from alignrec.pipeline.dataset import split
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.device import gemm_rate, pick_device
from alignrec.pipeline.models.alignrec import AlignRec, AlignRecParams
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.metrics import evaluate_vectors
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.models.training.loop import compile_network
from alignrec.pipeline.runtime.process import keep_large_buffers
from benchmarks import Measurement, _plain_alignrec, _turns
from benchmarks._plain_alignrec import Epoch, steps
from benchmarks._turns import Turn, timed

USERS, ITEMS, TRAIN, VALID, WIDTH = 19_445, 7_050, 118_551, 20_559, 768
SETTINGS = AlignRecParams()
Loss = Callable[[Batch], Mapping[str, torch.Tensor]]
# faster settings, reported next to the default
OTHERS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "bf16, frozen": {"precision": "bf16", "mode": "frozen"},
}
# additional settings on a GPU
ON_GPU: dict[str, dict[str, Any]] = {
    "compiled": {"compile": True},
    "bf16, frozen, compiled": {"precision": "bf16", "mode": "frozen", "compile": True},
}


def run() -> Measurement:
    """Train all from equal parameters on equal batches, and check that losses agree with plain PyTorch."""
    # separate processes, as our code changes the allocator's settings
    names = ["exact", *OTHERS, *(ON_GPU if pick_device().type == "cuda" else ())]
    with _turns.process() as theirs, _turns.process() as ours:
        turns = {"plain": partial(theirs, _plain)} | {
            name: partial(ours, _ours, name) for name in names
        }
        ways = _turns.take(turns, warm_up=True)
        flops = ours(_flops_of_an_epoch)
    exact, plain = ways["exact"].last, ways["plain"].last
    gap = max(abs(a - b) for a, b in zip(exact.losses, plain.losses, strict=True))
    if gap > 1e-3:
        raise RuntimeError(f"the plain way's losses differ by {gap}")
    return Measurement(
        ways=ways,
        ours="exact",
        reference="plain",
        unit="s/epoch",
        higher_is_better=False,
        limit=flops / gemm_rate("float32", 1.0),
        limit_is="float32 products that no exact step can avoid, at this machine's GEMM rate",
        what=f"{USERS:,} users, {ITEMS:,} items, {TRAIN:,} train pairs, {WIDTH}-d features that train; the reference: "
        "COO sparse products, B x B losses, unfused Adam, a Python loop for negatives, a loop over users in ranking",
        details={
            "parts": {
                name: {
                    part: [getattr(turn.result, part) for turn in way.turns]
                    for part in ("train", "sample", "rank")
                }
                for name, way in ways.items()
            },
            "largest_difference_of_a_batch_loss": gap,
            "recall@20": {"exact": exact.recall, "plain": plain.recall},
            "gflop_an_epoch": flops / 1e9,
            "device": pick_device().type,
            "threads": torch.get_num_threads(),
        },
    )


@cache
def _inputs() -> Inputs:
    """Generate pairs with long tails of users and items, and clustered features."""
    rng = np.random.default_rng(0)
    tail = np.arange(1, ITEMS + 1) ** -0.7
    n = TRAIN + VALID
    users = np.concatenate([np.arange(USERS), (USERS * rng.random(2 * n) ** 1.5).astype(int)])
    items = rng.choice(ITEMS, len(users), p=tail / tail.sum())
    keys = np.unique(users * ITEMS + items)
    keys = np.sort(rng.permutation(keys)[:n])
    rest = rng.permutation(n)
    pairs = [split.Pairs((k // ITEMS).astype(np.int32), (k % ITEMS).astype(np.int32))
             for k in (np.sort(keys[rest[:TRAIN]]), np.sort(keys[rest[TRAIN:]]))]  # fmt: skip
    nobody = split.Pairs(np.empty(0, np.int32), np.empty(0, np.int32))
    features = rng.normal(size=(200, WIDTH))[rng.integers(0, 200, ITEMS)] + rng.normal(
        size=(ITEMS, WIDTH)
    )
    features = features.astype("f4")
    edges = neighbours.find_neighbours(features, 10)
    parts = split.Split(USERS, ITEMS, pairs[0], pairs[1], nobody)
    device = pick_device()
    return Inputs(parts, torch.from_numpy(features).to(device), edges, device)


@cache
def _batches() -> list[Batch]:
    drawn = torch.from_numpy(Sampler(_inputs().split).epoch(np.random.default_rng(0))).to(
        _inputs().device
    )
    return [Batch(*part) for part in drawn.split(SETTINGS.batch_size, dim=1)]


@cache
def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return AlignRec(_inputs(), SETTINGS).to(_inputs().device).state_dict()


@cache
def _model(name: str) -> tuple[AlignRec, Loss]:
    settings = {"exact": {}, **OTHERS, **ON_GPU}[name]
    model = AlignRec(_inputs(), SETTINGS.model_copy(update=settings)).to(_inputs().device)
    return model, compile_network(model) if settings.get("compile") else model.loss


def _plain() -> Turn[Epoch]:
    model, _ = _model("exact")
    model.load_state_dict(_state())
    return _plain_alignrec.run(model, _inputs(), SETTINGS, _batches()).turn


def _ours(name: str) -> Turn[Epoch]:
    keep_large_buffers()  # as the stage `train` does
    model, loss = _model(name)
    model.load_state_dict(
        {key: value for key, value in _state().items() if key in model.state_dict()}
    )
    parts, batches = _inputs().split, _batches()
    sample = timed(lambda: Sampler(parts).epoch(np.random.default_rng(1)))
    train = timed(
        steps, _optimiser(model), batches, lambda b: torch.stack(list(loss(b).values())).sum()
    )
    evaluate = partial(evaluate_vectors, split=parts, which="valid", ks=[20])
    with torch.no_grad():
        rank = timed(lambda: evaluate(*model()).mean["recall", 20])
    return Epoch.of(sample, train, rank).turn


def _optimiser(model: AlignRec) -> torch.optim.Adam:
    return torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=SETTINGS.lr, fused=True
    )


def _flops_of_an_epoch() -> float:
    return sum(_flops(batch) for batch in _batches()) + 2 * USERS * ITEMS * SETTINGS.dim


def _flops(batch: Batch) -> float:
    """Return the FLOPs of the dense products of one step."""
    # three products each (forward, two gradients) of feature projection and gate, and of both alignments; REG's Gram
    # matrices; a multiply-add counts twice
    items, users = len(batch.positives.unique()), len(batch.users.unique())
    dim = SETTINGS.dim
    projection = 3 * ITEMS * (WIDTH + dim) * dim
    align = 3 * (items**2 + users**2) * dim
    gram = items * WIDTH * (WIDTH + 1) / 2 + 3 * items * dim * (WIDTH + dim)
    return 2 * (projection + align + gram)
