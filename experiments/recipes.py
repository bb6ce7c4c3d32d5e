"""Time of AlignRec recipes to equal valid Recall@20 on Baby, with random features: `python -m experiments.recipes`."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch

from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.projections import random_vectors
from alignrec.pipeline.models.alignrec import FAST, AlignRec, AlignRecParams
from alignrec.pipeline.models.base import Batch, Inputs
from alignrec.pipeline.models.training.inputs import Sampler
from alignrec.pipeline.models.training.loop import fit
from benchmarks import _plain_alignrec
from benchmarks._baby import published_split

WIDTH = 768


def main(seed: int) -> None:
    split = published_split()
    features = random_vectors(split.n_items, WIDTH, 0)
    edges = neighbours.find_neighbours(features, 10)
    plain = plain_epoch(split, features, edges)
    curves = {
        recipe: curve(
            split,
            features,
            edges,
            AlignRecParams.model_validate({"recipe": recipe, "patience": patience}),
            seed,
        )
        for recipe, patience in (("published", 20), ("fast", FAST["patience"]))
    }
    aim = max(recall for _, recall in curves["published"])
    reached = {recipe: epochs_to(aim, found) for recipe, found in curves.items()}
    for recipe, found in curves.items():
        best, when = max(recall for _, recall in found), f"never {aim:.4f}"
        if (epoch := reached[recipe]) is not None:
            when = f"{aim:.4f} after {epoch} epochs, {found[epoch - 1][0]:.0f} s"
        print(
            f"{recipe}: {len(found)} epochs, {found[-1][0]:.0f} s; best valid Recall@20 {best:.4f}; {when}"
        )
    theirs = plain * (reached["published"] or 0)
    print(f"as the published code does it: {plain:.1f} s an epoch, {theirs:.0f} s to its best")
    if reached["fast"]:
        print(
            f"the fast recipe takes {curves['fast'][reached['fast'] - 1][0] / theirs:.1%} of that"
        )


def epochs_to(aim: float, found: list[tuple[float, float]]) -> int | None:
    return next((epoch for epoch, (_, recall) in enumerate(found, start=1) if recall >= aim), None)


def plain_epoch(split: Split, features: np.ndarray, edges: Any) -> float:
    """Return the seconds of an epoch in plain PyTorch, including sampling and the ranking of valid."""
    inputs, params = (
        Inputs(split, torch.from_numpy(features), edges, torch.device("cpu")),
        AlignRecParams(),
    )
    drawn = torch.from_numpy(Sampler(split).epoch(np.random.default_rng(0)))
    batches = [Batch(*part) for part in drawn.split(params.batch_size, dim=1)]
    epoch = _plain_alignrec.run(AlignRec(inputs, params), inputs, params, batches)
    return epoch.train + epoch.rank


def curve(
    split: Split, features: np.ndarray, edges: Any, params: AlignRecParams, seed: int
) -> list[tuple[float, float]]:
    started, found = time.perf_counter(), []

    def note(line: dict[str, Any]) -> None:
        found.append((time.perf_counter() - started, line["valid_recall@20"]))
        print(
            f"{params.recipe} {len(found)}: {found[-1][0]:.0f} s, {found[-1][1]:.4f}",
            file=sys.stderr,
        )

    fit(AlignRec, split, features, edges, params, seed, note)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
