"""One epoch of AlignRec at Amazon Baby's size: training and full ranking of valid, ours and the plain way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import Measurement, _plain_alignrec
from benchmarks._plain_alignrec import Epoch, steps, timed
from pipeline.evaluation.metrics import evaluate
from pipeline.graph import neighbours
from pipeline.interactions import split
from pipeline.models.alignrec import AlignRec, AlignRecParams
from pipeline.models.base import Batch, Inputs
from pipeline.ops.allocator import keep_large_buffers
from pipeline.ops.device import gemm_rate
from pipeline.train.loop import compiled, pick_device
from pipeline.train.sampling import Sampler

USERS, ITEMS, TRAIN, VALID, WIDTH = 19_445, 7_050, 118_551, 20_559, 768
SETTINGS = AlignRecParams()
ROUNDS = 3
"""of each way"""
OTHERS = {"bf16": {"precision": "bf16"}, "bf16, frozen": {"precision": "bf16", "mode": "frozen"}}
"""faster settings, reported beside the default's"""
ON_GPU = {
    "compiled": {"compile": True},
    "bf16, frozen, compiled": {"precision": "bf16", "mode": "frozen", "compile": True},
}
"""the same where there is a GPU"""
PUBLISHED = 12.4
"""seconds that the published code takes for the same on 2 cores of a Xeon with AMX (10.2 training, 2.2 ranking)"""
PARTS = {
    "dense products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::mv", "mkldnn::_linear_pointwise"),
    "sparse products": ("aten::_embedding_bag_forward_only",),
    "exp": ("aten::exp_",),
    "Adam": ("aten::_fused_adam_",),
    "rounding and copies": ("aten::copy_",),
}
"""where a step's time goes on CPU: torch's operators; all others are the rest"""


def run() -> Measurement:
    """AlignRecParams both from the same parameters on the same batches; their losses must agree."""
    inputs = _inputs()
    drawn = torch.from_numpy(Sampler(inputs.split).epoch(np.random.default_rng(0))).to(inputs.device)
    batches = [Batch(*part) for part in drawn.split(SETTINGS.batch_size, dim=1)]
    torch.manual_seed(0)
    model = AlignRec(inputs, SETTINGS).to(inputs.device)
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def plain() -> Epoch:
        model.load_state_dict(state)
        return _plain_alignrec.run(model, inputs, SETTINGS, batches)

    reference = _fastest(plain)
    keep_large_buffers()  # as pipeline.train does
    ours = _ours(inputs, batches, state, {})
    where = _where(model, batches[:8]) if inputs.device.type == "cpu" else {}
    faster = OTHERS | (ON_GPU if inputs.device.type == "cuda" else {})
    others = {name: _ours(inputs, batches, state, settings) for name, settings in faster.items()}
    gap = max(abs(a - b) for a, b in zip(ours.losses, reference.losses, strict=True))
    if gap > 1e-3:
        raise RuntimeError(f"the plain way's losses differ by {gap}")
    flops = sum(_flops(batch) for batch in batches) + 2 * USERS * ITEMS * SETTINGS.dim
    return Measurement(
        ours=ours.train + ours.rank,
        reference=reference.train + reference.rank,
        unit="s/epoch",
        higher_is_better=False,
        limit=flops / gemm_rate("float32", 1.0),
        limit_is="float32 products that no exact step can avoid, at this machine's GEMM rate",
        what=f"{USERS:,} users, {ITEMS:,} items, {TRAIN:,} train pairs, {WIDTH}-d features that train; the reference: "
        "COO sparse products, B x B losses, unfused Adam, a Python loop for negatives, a loop over users in ranking",
        details={
            "ours": {"train": ours.train, "sample": ours.sample, "rank": ours.rank},
            **{name: {"train": e.train, "rank": e.rank} for name, e in others.items()},
            "reference": {"train": reference.train, "sample": reference.sample, "rank": reference.rank},
            "largest_difference_of_a_batch_loss": gap,
            "recall@20": {"ours": ours.recall, "reference": reference.recall},
            "ratio": {name: (reference.train + reference.rank) / (e.train + e.rank) for name, e in others.items()},
            "ratio_to_the_published_code_on_another_machine": {
                name: PUBLISHED / (e.train + e.rank) for name, e in {"exact": ours, **others}.items()
            },
            "share_of_a_step": where,
            "gflop_an_epoch": flops / 1e9,
            "device": inputs.device.type,
            "threads": torch.get_num_threads(),
        },
    )


def _inputs() -> Inputs:
    """Generate pairs with long tails on both sides, and features with neighbours in them."""
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
    features = (rng.normal(size=(200, WIDTH))[rng.integers(0, 200, ITEMS)] + rng.normal(size=(ITEMS, WIDTH))).astype(
        "f4"
    )
    edges = neighbours.neighbours(features, 10)
    parts = split.Split(USERS, ITEMS, pairs[0], pairs[1], nobody)
    device = pick_device()
    return Inputs(parts, torch.from_numpy(features).to(device), edges, device)


def _ours(inputs: Inputs, batches: list[Batch], state: dict[str, torch.Tensor], settings: dict[str, Any]) -> Epoch:
    model, parts = AlignRec(inputs, SETTINGS.model_copy(update=settings)).to(inputs.device), inputs.split
    loss = compiled(model) if settings.get("compile") else model.loss

    def epoch() -> Epoch:
        model.load_state_dict(state)
        sample, _ = timed(lambda: Sampler(parts).epoch(np.random.default_rng(1)))
        optimiser = _optimiser(model)
        train, losses = timed(lambda: steps(optimiser, batches, lambda b: torch.stack(list(loss(b).values())).sum()))
        with torch.no_grad():
            rank, found = timed(lambda: evaluate(*model(), parts, "valid", [20]).mean)
        return Epoch(train + sample, sample, rank, losses, found["recall", 20])

    return _fastest(epoch)


def _fastest(epoch: Callable[[], Epoch]) -> Epoch:
    """Return the fastest of ROUNDS same epochs: the first builds kernels, and others slow what they run beside."""
    return min((epoch() for _ in range(ROUNDS)), key=lambda e: e.train + e.rank)


def _optimiser(model: AlignRec) -> torch.optim.Adam:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=SETTINGS.lr, fused=True)


def _where(model: AlignRec, batches: list[Batch]) -> dict[str, float]:
    """Return the share of each of PARTS in the time of some steps."""
    optimiser = _optimiser(model)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        steps(optimiser, batches, lambda b: torch.stack(list(model.loss(b).values())).sum())
    seconds = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    total = sum(seconds.values())
    shares = {part: sum(seconds.get(name, 0.0) for name in names) / total for part, names in PARTS.items()}
    return shares | {"rest": 1 - sum(shares.values())}


def _flops(batch: Batch) -> float:
    """Multiply-adds, twice, of the dense products of one step: feature projection and gate three times (forward, two
    gradients), both alignments three times, REG's Gram matrices.
    """
    items, users = len(batch.positives.unique()), len(batch.users.unique())
    dim = SETTINGS.dim
    projection = 3 * ITEMS * (WIDTH + dim) * dim
    align = 3 * (items**2 + users**2) * dim
    gram = items * WIDTH * (WIDTH + 1) / 2 + 3 * items * dim * (WIDTH + dim)
    return 2 * (projection + align + gram)
