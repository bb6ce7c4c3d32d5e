"""Exposure of items by model (docs/study.md, "Exposure"): `python -m experiments.exposure sample`."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.harness.config import checked
from alignrec.pipeline.interactions.params import Interactions
from alignrec.pipeline.train.params import Released
from experiments.shared import branched, opened

SHOWN = (("catalogue", "coverage"), ("catalogue", "gini"), ("history", "recall"), ("popularity", "recall"))


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    protocol: str = "mmrec",
    most_train: int = 3,
    draws: int = 3,
    budget: int = 4,
    model: Annotated[list[str], typer.Option()] = ["lightgcn", "bm3", "alignrec"],  # noqa: B006
) -> None:
    """Benchmark the models on other splits and print coverage, Gini and recall by group at the largest cutoff."""
    given, layout, folder = opened(dataset, params, root, f"exposure/{protocol}-{most_train}")
    keys: dict[str, Any] = {"protocol": protocol, "most_train": most_train, "draws": draws}
    split = checked(Interactions, given[Interactions].model_dump(exclude_unset=True) | keys, "interactions")
    changed = {"models": model, "features": [given[Released].features], "budget": budget, "ablations": {}}
    own = given.having(split, given[Benchmark].model_copy(update=changed))
    branch = branched(layout, folder, own, ["interactions", "benchmark"])
    rows = io.read_table(branch.slices, schemas.SLICES).to_pylist()
    figures: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if (row["slice"], row["metric"]) in SHOWN and row["k"] == 20 and row["n"]:
            named = (row["protocol"], f"{row['slice']} {row['label']} {row['metric']}", row["model"])
            figures.setdefault(named, []).append(row["value"])
    for (rules, what, name), values in figures.items():
        print(f"{rules}: {what}, {name}: {np.mean(values):.4f}")


if __name__ == "__main__":
    typer.run(main)
