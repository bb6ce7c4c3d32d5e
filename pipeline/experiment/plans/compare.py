"""The trainings of `alignrec compare`: AlignRec and two baselines on each feature set, over several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.benchmark.settings import model_settings
from pipeline.config.parameters import Parameters
from pipeline.evaluation.cutoff import bounded
from pipeline.evaluation.protocol import Protocol
from pipeline.experiment.cell import Cell
from pipeline.experiment.pairs import Stored
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.seeds import seed_for

MODELS = ("alignrec", "bm3", "vbpr")
"""AlignRec, its predecessor in production, and the oldest recommender that reads features"""


class Compared(NamedTuple):
    """One training."""

    model: str
    features: str
    seed: int
    """number of the run; equal numbers draw equal negatives whatever the features"""


def plan(
    params: Parameters, layout: Layout, files: Mapping[str, Path], seeds: int, rules: Protocol, items: int
) -> dict[Compared, Cell]:
    """Return the cells, models in order of MODELS.

    Args:
        params: of settings and graph.
        layout: of the dataset.
        files: feature set -> its vectors in item order, .npy.
        seeds: trainings of each model on each.
        rules: by which epochs are chosen.
        items: of the catalogue.
    """
    return {
        Compared(model, name, seed): Cell(
            Stored(layout, path, graph=params[Graph]),
            model,
            model_settings(params, model),
            rules,
            seed_for("compare", layout.dataset, model, seed),
            (bounded(items),),
        )
        for model in MODELS
        for name, path in files.items()
        for seed in range(seeds)
    }
