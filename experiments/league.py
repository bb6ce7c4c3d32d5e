"""Compare models on several splits with equal budgets (docs/who-wins.md).

Command: `python -m experiments.league sample`.
"""

from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import kendalltau

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel, read_runs
from alignrec.pipeline.evaluation.benchmark.experiment import read_evaluation
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.evaluation.evidence import list_comparisons, mean_and_sd
from alignrec.pipeline.evaluation.statistics import corrected_tests
from alignrec.pipeline.models.params import DEFAULT_FEATURE_SET
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import RECALL, branched, opened

MODELS = ["itemknn", "contentknn", "ease", "l3ae", "bpr", "lightgcn", "bm3", "freedom"]
Arm = tuple[str, str]  # model and features


def read_recalls(branch: Layout, runs: list[CellLabel]) -> np.ndarray:
    """Return the recall of each user, the mean over runs, float64 [U]."""
    split = inputs.read_inputs(branch, None).split
    cells = read_runs(branch)
    recalls = []
    for run in runs:
        path = branch.cells("benchmark") / f"{cells[run]}.parquet"
        recalls.append(read_evaluation(path, split, [20]).per_user["recall", 20])
    return np.mean(recalls, axis=0)


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    model: Annotated[list[str], typer.Option()] = [*MODELS, "mgcn", "alignrec"],  # noqa: B006
    features: Annotated[list[str], typer.Option()] = [DEFAULT_FEATURE_SET, "random", "shuffled"],  # noqa: B006
    splits: int = 2,
    budget: int = 4,
    seeds: int = 3,
) -> None:
    """Benchmark the models on several splits and print recall and significance tests. Resumes."""
    parameters, layout, folder = opened(dataset, params, root, "league")
    changed = {
        "models": model,
        "features": features,
        "budget": budget,
        "seeds": seeds,
        "ablations": {},
        "ks": [20],
    }
    benchmark = parameters[Benchmark].model_copy(update=changed)
    recalls: dict[Arm, list[float]] = {}
    users: dict[Arm, list[float]] = {}
    ranks: list[dict[Arm, int]] = []
    for number in range(splits):
        seed = parameters[Interactions].seed + number
        split = parameters[Interactions].model_copy(update={"seed": seed})
        sections = parameters.with_sections(split, benchmark)
        branch = branched(layout, folder / str(number), sections, ["interactions", "benchmark"])

        rows = list_comparisons(io.read_table(branch.results, schemas.RESULTS))[0].rows
        ranks.append({(row.model, row.features): rank for rank, row in enumerate(rows)})
        for row in rows:
            arm = (row.model, row.features)
            runs = [CellLabel(row.model, row.features, run_seed) for run_seed in range(seeds)]
            recalls.setdefault(arm, []).extend(row.cells["recall", 20].values)
            users.setdefault(arm, []).extend(read_recalls(branch, runs).tolist())

    print_recalls(recalls)
    order = sorted(recalls, key=lambda arm: -np.mean(recalls[arm]))
    print_tests(order, users, seed_for("league", dataset))
    print_agreement(order, ranks)


def print_recalls(recalls: dict[Arm, list[float]]) -> None:
    for arm in sorted(recalls, key=lambda arm: -np.mean(recalls[arm])):
        figure = mean_and_sd(recalls[arm])
        print(f"| {' on '.join(arm)} | {figure.mean:.4f} ± {figure.sd or 0:.4f} |")


def print_tests(order: list[Arm], users: dict[Arm, list[float]], seed: int) -> None:
    """Print the significance of the difference between each pair of arms."""
    pairs = []
    for first, second in combinations(order, 2):
        values = np.array(users[first]), np.array(users[second])
        pairs.append((RECALL, " on ".join(first), " on ".join(second), *values))
    for test in corrected_tests(pairs, seed):
        print(f"{test['a']} - {test['b']}: {test['difference']:+.4f}, p {test['p_holm']:.4f}")


def print_agreement(order: list[Arm], ranks: list[dict[Arm, int]]) -> None:
    taus = []
    for first, second in combinations(ranks, 2):
        first_ranks = [first[arm] for arm in order]
        second_ranks = [second[arm] for arm in order]
        taus.append(kendalltau(first_ranks, second_ranks).statistic)
    tau = np.mean(taus) if taus else float("nan")
    print(f"Kendall's tau between splits: {tau:.2f}")


if __name__ == "__main__":
    typer.run(main)
