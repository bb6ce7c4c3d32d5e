"""Exposure of items by model (docs/study.md, "Exposure").

Command: `python -m experiments.exposure sample`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.evaluation.benchmark.cell import rankings_path, read_runs
from alignrec.pipeline.evaluation.benchmark.experiment import read_evaluation
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.benchmark.settings import protocol_of
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.report.table import Table
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import validate
from experiments.shared import branched, opened, record

OPTIONS = {"sparse": {"most_train", "draws"}, "cold-items": {"draws"}}  # protocol -> what it reads
NEW = "cold"  # label of items that train lacks
SHOWN_OF_NEW = {
    ("popularity", "recall"): "Recall@20 of new items",
    ("popularity", "exposure"): "share of new items in what is shown",
}
SHOWN = {  # (slice, metric) -> its name; {} is the label
    ("catalogue", "coverage"): "share of the catalogue in a user's top 20",
    ("catalogue", "gini"): "Gini of how often items are shown (0: equally)",
    ("history", "recall"): "Recall@20 of users with {} train interactions",
    ("popularity", "recall"): "Recall@20 of items in tenth {} by popularity",
}
SLICES = ("history", "popularity", "catalogue")  # in the order of the table


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    protocol: Annotated[list[str], typer.Option()] = ["mmrec", "cold-items"],  # noqa: B006
    most_train: int | None = None,
    draws: int | None = None,
    budget: int = 4,
    model: Annotated[list[str], typer.Option()] = ["lightgcn", "bm3-improved", "alignrec"],  # noqa: B006
) -> None:
    """Benchmark the models on other splits and record coverage, Gini and recall by group."""
    parameters, layout, folder = opened(dataset, params, root, "exposure")
    # before training, which takes minutes
    splits = [divide(parameters, one, most_train=most_train, draws=draws) for one in protocol]
    features = parameters[TrainSettings].features

    tables = []
    for split in splits:
        changed = {"models": model, "features": [features], "budget": budget, "ablations": {}}
        benchmark = parameters[Benchmark].model_copy(update=changed)
        sections = parameters.with_sections(split, benchmark)
        branch = branched(
            layout,
            folder / f"{split.protocol}-{split.most_train}",
            sections,
            ["interactions", "benchmark"],
        )
        rows = io.read_table(branch.slices, schemas.SLICES).to_pylist()
        tables += tabulate([*rows, *measure_shown(sections, branch)], benchmark)
        print(f"{split.protocol}: {', '.join(model)}", flush=True)
    record(layout, "exposure", *tables)


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


def measure_shown(params: Parameters, branch: Layout) -> Iterator[dict[str, Any]]:
    """Yield rows, as of table SLICES, of how often each run shows items, and new ones."""
    layouts = branch.draws()
    for label in read_runs(branch):
        split = inputs.read_inputs(layouts[label.seed % len(layouts)], None).split
        is_new = np.bincount(split.train.items, minlength=split.n_items) == 0
        for protocol in protocol_of(params, branch.dataset, split).variants:
            path = rankings_path(branch, label, protocol.suffix)
            top = read_evaluation(path, split, [CUTOFF]).top[:, :CUTOFF]
            shown = top[top >= 0]
            counts = np.bincount(shown, minlength=split.n_items)
            header = label._asdict() | protocol.label | {"k": CUTOFF, "n": len(top)}
            every = header | {"slice": "catalogue", "label": "all"}
            yield every | {"metric": "coverage", "value": np.count_nonzero(counts) / split.n_items}
            yield every | {"metric": "gini", "value": gini(counts)}
            if is_new[split.test.items].any():
                new = header | {"slice": "popularity", "label": NEW}
                yield new | {"metric": "exposure", "value": is_new[shown].mean()}


def gini(counts: np.ndarray) -> float:
    """Return the Gini coefficient of counts, int [I], of which one at least is above 0."""
    weights = 2 * np.arange(1, len(counts) + 1) - len(counts) - 1
    return float((weights * np.sort(counts)).sum() / (len(counts) * counts.sum()))


def tabulate(rows: list[dict[str, Any]], benchmark: Benchmark) -> list[Table]:
    """Return a table of figures by model for each protocol in rows of schema SLICES."""
    figures: dict[str, dict[str, dict[str, list[float]]]] = {}  # protocol -> measure -> model
    for row in sorted(rows, key=place_row):
        name = name_measure(row)
        if name and row["k"] == CUTOFF and row["n"]:
            by_measure = figures.setdefault(row["protocol"], {})
            by_model = by_measure.setdefault(name, {})
            by_model.setdefault(row["model"], []).append(row["value"])

    tables = []
    for protocol, by_measure in figures.items():
        cells = []
        for name, by_model in by_measure.items():
            means = [f"{np.mean(by_model[model]):.4f}" for model in benchmark.models]
            cells.append([name, *means])
        note = (
            f"Test, protocol {protocol}, each model with the best of {benchmark.budget} settings "
            f"on valid; means over {benchmark.seeds} seeds."
        )
        tables.append(Table("", note, ("", *benchmark.models), cells))
    return tables


def place_row(row: dict[str, Any]) -> tuple[int, int]:
    """Return the place of a row in its table: by slice, and by the first number of its label."""
    number = re.match(r"\d+", row["label"])
    slices = [*SLICES, row["slice"]]
    return slices.index(row["slice"]), int(number[0]) if number else 0


def name_measure(row: dict[str, Any]) -> str:
    """Return the name of a row's measure, empty for measures that are not shown."""
    shown = SHOWN_OF_NEW if row["label"] == NEW else SHOWN
    return shown.get((row["slice"], row["metric"]), "").format(row["label"])


if __name__ == "__main__":
    typer.run(main)
