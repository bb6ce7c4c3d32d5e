"""The item graph, exact and by an inverted file, on the CPU and, where FAISS has any, on the GPUs."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks import Measurement, _turns
from benchmarks.scale import SIZES, Size, generated
from pipeline.graph import gpu, neighbours
from pipeline.ops.device import gemm_rate

WIDTH, K = 768, 10
ALIKE = 0.999
"""edges of the GPUs that the CPU has too, at least"""


def run() -> Measurement:
    """Search the same features in every way; GPUs must give the CPU's neighbours."""
    size = SIZES["electronics" if gpu.count() else "baby"]
    kinds: list[neighbours.Index] = ["exact", "ivf"]
    places = {"CPU": False} | ({"GPU": True} if gpu.count() else {})
    _, features = generated(Size(size.users, size.items, size.interactions))
    turns = {
        f"{kind} {place}": partial(_turns.timed, neighbours.neighbours, features, K, kind, use_gpu)
        for kind in kinds
        for place, use_gpu in places.items()
    }
    ways = _turns.take(turns, work=size.items, warm_up=True)
    edges = {name: {*zip(*(way.last[c].to_pylist() for c in ("item_id", "neighbour_id")), strict=True)}
             for name, way in ways.items()}  # fmt: skip
    alike = {kind: len(edges[f"{kind} CPU"] & edges[f"{kind} {[*places][-1]}"]) / len(edges[f"{kind} CPU"])
             for kind in kinds}  # fmt: skip
    if min(alike.values()) < ALIKE:
        raise RuntimeError(f"share of the CPU's edges that the GPU has too: {alike}")
    return Measurement(
        ways=ways,
        ours=f"exact {[*places][-1]}",
        reference="exact CPU",
        unit="items/s",
        higher_is_better=True,
        limit=gemm_rate("float32", 1.0) / (2 * size.items * WIDTH),
        limit_is="cosines of all pairs at the float32 GEMM rate of the fastest device, nothing selected",
        what=f"{K} neighbours of {size.items:,} items, {WIDTH}-d; the reference: exact, on the CPU",
        details={"edges_alike": alike, "gpus": gpu.count(), "threads": torch.get_num_threads()},
    )
