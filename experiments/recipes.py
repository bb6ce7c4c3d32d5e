"""Time of AlignRec recipes to equal valid Recall@20 on Baby, with random features.

Command: `python -m experiments.recipes`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch

from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.projections import random_vectors
from alignrec.pipeline.models.alignrec import AlignRec, AlignRecParams
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.params import FAST
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.models.training.loop import fit
from benchmarks import _plain_alignrec
from benchmarks._baby import published_split

WIDTH = 768
Curve = list[tuple[float, float]]  # per epoch: seconds since the start, and valid Recall@20


def main(seed: int) -> None:
    split = published_split()
    features = random_vectors(split.n_items, WIDTH, 0)
    edges = neighbours.find_neighbours(features, 10)
    plain_seconds = measure_plain_epoch(split, features, edges)

    curves = {}
    for recipe, patience in (("published", 20), ("fast", FAST["patience"])):
        params = AlignRecParams.model_validate({"recipe": recipe, "patience": patience})
        curves[recipe] = train_curve(split, features, edges, params, seed)
    aim = max(recall for _, recall in curves["published"])
    for recipe, curve in curves.items():
        print(f"{recipe}: {describe_curve(curve, aim)}")

    published_epochs = count_epochs(aim, curves["published"])
    published_seconds = plain_seconds * (published_epochs or 0)
    print(
        f"as the published code does it: {plain_seconds:.1f} s an epoch, "
        f"{published_seconds:.0f} s to its best"
    )
    fast_epochs = count_epochs(aim, curves["fast"])
    if fast_epochs:
        fast_seconds, _ = curves["fast"][fast_epochs - 1]
        print(f"the fast recipe takes {fast_seconds / published_seconds:.1%} of that")


def describe_curve(curve: Curve, aim: float) -> str:
    best = max(recall for _, recall in curve)
    last_seconds, _ = curve[-1]
    reached = f"never {aim:.4f}"
    epochs = count_epochs(aim, curve)
    if epochs is not None:
        seconds, _ = curve[epochs - 1]
        reached = f"{aim:.4f} after {epochs} epochs, {seconds:.0f} s"
    return f"{len(curve)} epochs, {last_seconds:.0f} s; best valid Recall@20 {best:.4f}; {reached}"


def count_epochs(aim: float, curve: Curve) -> int | None:
    """Return the epochs until recall is at least `aim`."""
    for epoch, (_, recall) in enumerate(curve, start=1):
        if recall >= aim:
            return epoch
    return None


def measure_plain_epoch(split: Split, features: np.ndarray, edges: Any) -> float:
    """Return the seconds of an epoch in plain PyTorch, with sampling and the ranking of valid."""
    inputs = Inputs(split, torch.from_numpy(features), edges, torch.device("cpu"))
    params = AlignRecParams()
    triples = torch.from_numpy(Sampler(split).epoch(np.random.default_rng(0)))
    batches = [Batch(*part) for part in triples.split(params.batch_size, dim=1)]
    epoch = _plain_alignrec.run(AlignRec(inputs, params), inputs, params, batches)
    return epoch.train + epoch.rank


def train_curve(
    split: Split, features: np.ndarray, edges: Any, params: AlignRecParams, seed: int
) -> Curve:
    started = time.perf_counter()
    curve: Curve = []

    def note(line: dict[str, Any]) -> None:
        seconds = time.perf_counter() - started
        recall = line["valid_recall@20"]
        curve.append((seconds, recall))
        print(f"{params.recipe} {len(curve)}: {seconds:.0f} s, {recall:.4f}", file=sys.stderr)

    fit(AlignRec, split, features, edges, params, seed, note)
    return curve


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
