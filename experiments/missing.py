"""Fillings of a modality that a share of the items lacks (docs/study.md).

Command: `python -m experiments.missing sample`.
"""

from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer

from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.cell import DatasetData, Hidden
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.evidence import mean_and_sd
from alignrec.pipeline.features.folder import FeatureSet, Modality
from alignrec.pipeline.features.kinds.masked import mask_vectors
from alignrec.pipeline.features.params import Graph
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.report.table import CHANGE, Table, Value
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import variant
from experiments import filling
from experiments.shared import answer_probes, opened, paired_changes, planned, recalls, record

WHOLE, ZEROS = "nothing: ", "zeros"  # an arm is what is missing, and its filling
PROBES = ("zero_shot", "item_cf")
NOTE = (
    "{}; a modality of a share of the items is hidden. Its part of their vectors, what the "
    "whole ones have more than those without it, is zero, or filled from the {} items "
    "that are most often bought with them, {} hops. Probes raw. AlignRec: mean ± sd over "
    "{} seeds; the change is from zeros, tested over users; p is Holm's."
)


def read_without(layout: Layout, features: str, modality: Modality) -> np.ndarray:
    """Return vectors of all items without a modality, float32 [I, F]."""
    folder = layout.features(variant(features, modality))
    if folder.is_dir():
        return io.matrix(io.read_features(folder)["vector"])
    whole = FeatureSet.of(layout, features)
    vectors_of = mask_vectors(layout, whole, modality)
    return np.concatenate([vectors_of(number) for number in range(len(whole.shards))])


def fill_all(layout: Layout, features: str, ratios: list[float]) -> dict[str, np.ndarray]:
    """Return the vectors of each arm, float32 [I, F]."""
    table = io.read_features(layout.features(features))
    whole = io.matrix(table["vector"])
    graph = filling.copurchase_graph(inputs.read_inputs(layout, None).split)
    seed = seed_for("mask", layout.dataset)
    arms = {WHOLE: whole}
    for modality in get_args(Modality):
        without = read_without(layout, features, modality)
        never_had = ~table[f"has_{modality}"].to_numpy()
        for ratio in ratios:
            lacks = never_had | Hidden(modality, ratio, seed).rows(len(whole))
            for name in filling.FILLINGS:
                part = filling.fill_missing(name, graph, whole - without, lacks)
                arm = f"{modality} of {ratio:.0%}: {name}"
                arms[arm] = np.where(lacks[:, None], without + part, whole)
    return arms


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    features: str = "minilm-cnn",
    ratio: Annotated[list[float], typer.Option(min=0, max=1)] = [0.4, 0.8],  # noqa: B006
    seeds: int = 3,
) -> None:
    """Fill what items lack in each way and record probes and AlignRec's recall."""
    given, layout, folder = opened(dataset, params, root, f"missing/{features}")
    arms = fill_all(layout, features, ratio)
    data = {}
    for arm, vectors in arms.items():
        path = folder / f"{arm}.npy"
        io.write_npy(path, vectors)
        data[arm] = DatasetData(layout, path, (), given[Graph])
    probed = answer_probes(layout, arms, PROBES)
    by_cell = recalls(planned(given, data, [RELEASED], seeds), folder, given[Benchmark].workers)

    bases = {arm: f"{arm.partition(': ')[0]}: {ZEROS}" for arm in arms if arm != WHOLE}
    changes = paired_changes(by_cell, {a: b for a, b in bases.items() if a != b})
    rows: list[list[Value]] = []
    for arm in arms:
        by_seed = [values.mean() for label, values in by_cell.items() if label.features == arm]
        hits = [f"{answers[arm].mean():.4f}" for answers in probed.values()]
        rows.append([*arm.split(": "), *hits, mean_and_sd(by_seed), changes.get(arm)])
    head = ("missing", "filling", *probed, "test Recall@20", *CHANGE)
    note = NOTE.format(features, filling.NEIGHBOURS, filling.HOPS, seeds)
    record(layout, "missing", Table.of("", note, head, rows), reads_network=False)


if __name__ == "__main__":
    typer.run(main)
