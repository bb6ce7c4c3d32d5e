"""Exposure of items by model (docs/study.md, "Exposure").

Command: `python -m experiments.exposure sample`.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import validate
from experiments.shared import branched, opened, record

OPTIONS = {"sparse": {"most_train", "draws"}, "cold-items": {"draws"}}  # protocol -> what it reads
SHOWN = {  # (slice, metric) -> its name; {} is the label
    ("catalogue", "coverage"): "share of the catalogue in a user's top 20",
    ("catalogue", "gini"): "Gini of how often items are shown (0: equally)",
    ("history", "recall"): "Recall@20 of users with {} train interactions",
    ("popularity", "recall"): "Recall@20 of items in tenth {} by popularity",
}


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    protocol: str = "mmrec",
    most_train: int | None = None,
    draws: int | None = None,
    budget: int = 4,
    model: Annotated[list[str], typer.Option()] = ["lightgcn", "bm3", "alignrec"],  # noqa: B006
) -> None:
    """Benchmark the models on other splits and record coverage, Gini and recall by group."""
    parameters, layout, folder = opened(dataset, params, root, "exposure")
    split = divide(parameters, protocol, most_train=most_train, draws=draws)
    features = parameters[TrainSettings].features
    changed = {"models": model, "features": [features], "budget": budget, "ablations": {}}
    benchmark = parameters[Benchmark].model_copy(update=changed)

    folder = folder / f"{protocol}-{split.most_train}"
    sections = parameters.with_sections(split, benchmark)
    branch = branched(layout, folder, sections, ["interactions", "benchmark"])
    rows = io.read_table(branch.slices, schemas.SLICES).to_pylist()
    record(layout, "exposure", tabulate(rows, benchmark))


def divide(params: Parameters, protocol: str, **options: int | None) -> Interactions:
    """Return section `interactions` with another split.

    Raises UserError for an option that has no effect.
    """
    changed = {name: value for name, value in options.items() if value is not None}
    ignored = sorted(changed.keys() - OPTIONS.get(protocol, set()))
    if ignored:
        option = ignored[0].replace("_", "-")
        raise UserError(f"--{option}: has no effect on protocol '{protocol}'; remove it")

    section = params[Interactions].model_dump(exclude_unset=True)
    return validate(Interactions, section | {"protocol": protocol} | changed, "interactions")


def tabulate(rows: list[dict[str, Any]], benchmark: Benchmark) -> Table:
    """Return a table of figures by model from rows of schema SLICES."""
    figures: dict[str, dict[str, list[float]]] = {}  # measure -> model -> values
    for row in rows:
        name = SHOWN.get((row["slice"], row["metric"]))
        if name and row["k"] == 20 and row["n"]:
            by_model = figures.setdefault(name.format(row["label"]), {})
            by_model.setdefault(row["model"], []).append(row["value"])

    cells = []
    for name, by_model in figures.items():
        means = [f"{np.mean(by_model[model]):.4f}" for model in benchmark.models]
        cells.append([name, *means])
    note = (
        f"Test, each model with the best of {benchmark.budget} settings on valid; "
        f"means over {benchmark.seeds} seeds."
    )
    return Table("", note, ("", *benchmark.models), cells)


if __name__ == "__main__":
    typer.run(main)
