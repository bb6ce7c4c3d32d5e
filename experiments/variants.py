"""Variants of pre-training (docs/pretraining-results.md).

Command: `python -m experiments.variants sample --profile mini`.
"""

from functools import partial
from pathlib import Path
from typing import Any

import typer

from alignrec.pipeline import io
from alignrec.pipeline.beit3.params import BEiT3Sets
from alignrec.pipeline.evaluation.benchmark.cell import DatasetData
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.models import RELEASED
from experiments.shared import branched, compared, opened, planned, pretraining, recalls

SMALL: dict[str, Any] = {"size": "small", "steps": 1056}
# profile -> variant -> parameters of `pretrain` to override; variants are tested against the first
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "mini": {
        "untrained": {"steps": 0, "distill": 0},
        "article-100": {"steps": 100, "distill": 0},
        "article-300": {"steps": 300, "distill": 0},
        "taught-100": {"steps": 100},
        "taught-300": {"steps": 300},
    },
    "objective": {"recipe": SMALL, "article": SMALL | {"distill": 0, "batch_size": 32}},
    "steps": {f"{steps} steps": SMALL | {"steps": steps} for steps in (0, 264, 528, 1056)},
}
SETS = ["beit3", "beit3-raw"]
PROBES = ("zero_shot", "item_cf", "content_knn", "cold_items")


def main(
    dataset: str,
    profile: str = "mini",
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    seeds: int = 3,
    steps: int | None = None,
) -> None:
    """Train an encoder for each variant, for at most STEPS steps, and print its probes and
    AlignRec's recall on it.
    """
    given, layout, folder = opened(dataset, params, root, f"variants/{profile}")
    sets = given[BEiT3Sets].model_copy(update={"sets": SETS})
    data = {}
    for name, keys in PROFILES[profile].items():
        section = pretraining(given, **keys)
        if steps is not None:
            section = section.model_copy(update={"steps": min(section.steps, steps)})
        parameters = given.with_sections(section, sets)
        root_of_variant = folder / name.replace(" ", "-")
        stages = ["pretrain", "beit3", "graph", "probe"]
        branch = branched(layout, root_of_variant, parameters, stages)
        probes = io.read_json(branch.probes)
        for features in SETS:
            asked = filter(partial(_has_figure, probes), PROBES)
            figures = [f"{probe} {probes[probe][features]['hit@20']:.3f}" for probe in asked]
            print(f"{name}, {features}: {', '.join(figures)}")
            data[f"{name}, {features}"] = DatasetData.of(parameters, branch, features)

    cells = planned(given, data, [RELEASED], seeds)
    values = recalls(cells, folder, given[Benchmark].workers)
    print(compared(values, [*data]).markdown)


def _has_figure(probes: dict[str, Any], name: str) -> bool:
    return "hit@20" in probes.get(name, {}).get(SETS[0], {})


if __name__ == "__main__":
    typer.run(main)
