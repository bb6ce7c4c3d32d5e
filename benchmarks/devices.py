"""Encoding in one process on one device, and on all: every visible GPU, or two workers on a CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks import Measurement, _turns
from benchmarks.encode import SHAPE
from pipeline import engine, io
from pipeline.beit3.inference import flops
from pipeline.beit3.network import BEiT3
from pipeline.encode.beit3 import BEiT3Items, Prepared
from pipeline.engine.local import Worker
from pipeline.ops.device import gemm_rate, pick, visible

DEVICES = visible() if len(visible()) > 1 else [pick(), pick()]
JOBS, PASS, PASSES = (8, 64, 8) if pick().type == "cuda" else (4, 4, 1)
"""shards; items in a forward pass; passes a shard"""


def run() -> Measurement:
    """Encode the same pixels both ways; the bytes must be the same."""
    turns = {
        name: partial(_turns.timed, lambda where=where: [t for _, t in engine.map(_worker, range(JOBS), where)])
        for name, where in {"one": None, "all": engine.Devices(DEVICES)}.items()
    }
    items = JOBS * PASSES * PASS
    ways = _turns.take(turns, work=items, warm_up=True)
    if ways["one"].last != ways["all"].last:
        raise RuntimeError("several devices give other features than one")
    return Measurement(
        ways=ways,
        ours="all",
        reference="one",
        unit="items/s",
        higher_is_better=True,
        limit=len(visible()) * gemm_rate("float32", 1.0) / flops(SHAPE, True, 0),
        limit_is="float32 products of one device, times the devices, over the operations of an image",
        what=f"{items} images through BEiT3-base in float32, {JOBS} shards; networks are loaded within the time",
        details={"devices": [str(device) for device in DEVICES], "threads": torch.get_num_threads()},
    )


def _worker() -> Worker[int, pa.Table]:
    torch.manual_seed(0)
    encoder = BEiT3Items(BEiT3(SHAPE).to(pick()), None, 3)

    def encoded(job: Any) -> pa.Table:
        rng = np.random.default_rng(job)
        vectors = []
        for _ in range(PASSES):
            pixels = torch.from_numpy(rng.integers(0, 256, (PASS, SHAPE.image, SHAPE.image, 3), np.uint8))
            vectors.append(encoder.encode(Prepared(pixels, None, [0] * PASS)).cpu().numpy())
        return pa.table({"vector": io.vectors(np.concatenate(vectors))})

    return encoded
