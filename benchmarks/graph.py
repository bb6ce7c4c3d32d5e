"""The item graph, exact and by an inverted file, on the CPU and, where FAISS has any, on the GPUs."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks import Measurement, _turns
from benchmarks.electronics import SIZES, Size, generated
from pipeline.graph import gpu, neighbours
from pipeline.ops.device import gemm_rate

WIDTH, K = 768, 10
ALIKE = 0.999  # edges of the GPUs that the CPU has too, at least


def run() -> Measurement:
    """Search the same features in every way; GPUs must give the CPU's neighbours."""
    size = SIZES["electronics" if gpu.count() else "baby"]
    kinds: dict[str, tuple[neighbours.Index, bool]] = {"exact CPU": ("exact", False), "ivf CPU": ("ivf", False)}
    kinds |= {"exact GPU": ("exact", True)} if gpu.count() else {}
    _, features = generated(Size(size.users, size.items, size.interactions))
    turns = {name: partial(_turns.timed, neighbours.neighbours, features, K, *kind) for name, kind in kinds.items()}
    ways = _turns.take(turns, work=size.items, warm_up=True)
    edges = {name: {*zip(*(way.last[c].to_pylist() for c in ("item_id", "neighbour_id")), strict=True)}
             for name, way in ways.items()}  # fmt: skip
    alike = {name: len(edges["exact CPU"] & found) / len(edges["exact CPU"]) for name, found in edges.items()}
    if alike.get("exact GPU", 1.0) < ALIKE:
        raise RuntimeError(f"share of the CPU's edges that the others have too: {alike}")
    return Measurement(
        ways=ways,
        ours="exact GPU" if gpu.count() else "exact CPU",
        reference="exact CPU",
        unit="items/s",
        higher_is_better=True,
        limit=gemm_rate("float32", 1.0) / (2 * size.items * WIDTH),
        limit_is="cosines of all pairs at the float32 GEMM rate of the fastest device, nothing selected",
        what=f"{K} neighbours of {size.items:,} items, {WIDTH}-d; the reference: exact, on the CPU",
        details={"edges_alike": alike, "gpus": gpu.count(), "threads": torch.get_num_threads()},
    )
