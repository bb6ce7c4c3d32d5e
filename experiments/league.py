"""Compare models on several splits with equal budgets (docs/who-wins.md): `python -m experiments.league sample`."""

from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import kendalltau

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.cell import Entry, read_runs
from alignrec.pipeline.benchmark.experiment import read_evaluation
from alignrec.pipeline.benchmark.params import Benchmark
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.evaluation.evidence import list_comparisons, mean_and_sd
from alignrec.pipeline.evaluation.statistics import corrected_tests
from alignrec.pipeline.models.params import FEATURES
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.shared import RECALL, branched, opened

MODELS = [
    "itemknn",
    "contentknn",
    "ease",
    "cease",
    "addease",
    "l3ae",
    "bpr",
    "ials",
    "lightgcn",
    "bm3",
    "freedom",
]


def per_user(branch: Layout, runs: list[Entry]) -> dict[int, float]:
    split, named = inputs.read_inputs(branch, None).split, read_runs(branch)
    found = [
        read_evaluation(branch.cells("benchmark") / f"{named[run]}.parquet", split, [20])
        for run in runs
    ]
    values = np.mean([one.per_user["recall", 20] for one in found], axis=0)
    return dict(zip(found[0].users.tolist(), values.tolist(), strict=True))


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    model: Annotated[list[str], typer.Option()] = [*MODELS, "mgcn", "alignrec"],  # noqa: B006
    features: Annotated[list[str], typer.Option()] = [FEATURES, "random", "shuffled"],  # noqa: B006
    splits: int = 2,
    budget: int = 4,
    seeds: int = 3,
) -> None:
    """Benchmark the models on several splits and print recall and significance tests. Resumes."""
    given, layout, folder = opened(dataset, params, root, "league")
    changed = {
        "models": model,
        "features": features,
        "budget": budget,
        "seeds": seeds,
        "ablations": {},
        "ks": [20],
    }
    recalls: dict[tuple[str, str], list[float]] = {}
    users: dict[tuple[str, str], list[float]] = {}
    ranks = []
    for number in range(splits):
        split = given[Interactions].model_copy(update={"seed": given[Interactions].seed + number})
        own = given.with_sections(split, given[Benchmark].model_copy(update=changed))
        branch = branched(layout, folder / str(number), own, ["interactions", "benchmark"])
        rows = list_comparisons(io.read_table(branch.results, schemas.RESULTS))[0].rows
        for row in rows:
            runs = [Entry(row.model, row.features, seed) for seed in range(seeds)]
            recalls.setdefault((row.model, row.features), []).extend(row.cells["recall", 20].values)
            users.setdefault((row.model, row.features), []).extend(per_user(branch, runs).values())
        ranks.append({(row.model, row.features): place for place, row in enumerate(rows)})
    order = sorted(recalls, key=lambda name: -np.mean(recalls[name]))
    for name in order:
        figure = mean_and_sd(recalls[name])
        print(f"| {' on '.join(name)} | {figure.mean:.4f} ± {figure.sd or 0:.4f} |")
    pairs = [(RECALL, " on ".join(a), " on ".join(b), np.array(users[a]), np.array(users[b]))
             for a, b in combinations(order, 2)]  # fmt: skip
    for test in corrected_tests(pairs, seed_for("league", dataset)):
        print(f"{test['a']} - {test['b']}: {test['difference']:+.4f}, p {test['p_holm']:.4f}")
    taus = [
        kendalltau([a[n] for n in order], [b[n] for n in order]).statistic
        for a, b in combinations(ranks, 2)
    ]
    print(f"Kendall's tau between splits: {np.mean(taus) if taus else float('nan'):.2f}")


if __name__ == "__main__":
    typer.run(main)
