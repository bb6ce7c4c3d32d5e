"""Features that learned from interactions, on cold items (docs/study.md).

Command: `python -m experiments.mapped sample`. I items, F and W widths, n rows.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from alignrec import schemas
from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
from alignrec.pipeline.evaluation.probe.cold_items import ColdItems
from alignrec.pipeline.evaluation.probe.judge import answer_sets, build_tasks, summarise_answers
from alignrec.pipeline.evaluation.probe.registry import PROBES, Data
from alignrec.pipeline.features import profiles
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.linalg.projections import Whitening
from alignrec.pipeline.models.cutoff import CUTOFF
from alignrec.pipeline.report.table import Table, with_error
from alignrec.pipeline.runtime.seeds import seed_for
from experiments.ceilings import collaborative_factors
from experiments.shared import opened, read_probe_data, read_vectors, record

MAX_FACTORS = 128  # that features are mapped to; fewer if train interactions have a lower rank
PENALTY = 1.0  # of the ridge regression, as a fraction of the mean variance of a column
NOTE = (
    "Raw, ± standard error. Mapped sets learn from train interactions, a leak; those of cold items "
    "are hidden."
)


def map_to_factors(vectors: np.ndarray, data: Data, seed: int, cold: np.ndarray) -> np.ndarray:
    """Map vectors, float32 [I, F], to factors of train interactions, float32 [I, W].

    The interactions of items `cold`, int [C], are hidden.
    """
    user, item, split = data.columns("user_id", "item_id", "split")
    is_used = (split == schemas.TRAIN) & ~np.isin(item, cold)
    user, item = user[is_used], item[is_used]

    factors = collaborative_factors(user_item_matrix(user, item, data.items), MAX_FACTORS, seed)
    teaches = (np.bincount(item, minlength=data.items) > 0) & vectors.any(axis=1)
    return fit_ridge(vectors[teaches], factors[teaches], PENALTY).apply(vectors)


def fit_ridge(x: np.ndarray, y: np.ndarray, strength: float) -> Whitening:
    """Fit a ridge regression from centred x, float32 [n, F], to y, float64 [n, W]."""
    with threadpool_limits(1):  # several threads would change the order of sums
        mean = x.mean(axis=0, dtype=np.float64)
        centred = x - mean
        products = centred.T @ centred / len(x)
        penalty = strength * np.trace(products) / len(mean)
        ridge = products + penalty * np.eye(len(mean))
        solution = np.linalg.solve(ridge, centred.T @ y / len(x))
    return Whitening(mean.astype(np.float32), solution.astype(np.float32))


def main(
    dataset: str,
    params: Path = Path("params.yaml"),
    root: Path = Path("outputs"),
    features: Annotated[list[str], typer.Option()] = ["linear", "beit3"],  # noqa: B006
) -> None:
    """Map feature sets to factors of train interactions and record all probes of both."""
    parameters, layout, _ = opened(dataset, params, root, "mapped")
    seed = seed_for("mapped", dataset, parameters[Combine].seed)
    data = read_probe_data(layout)
    learners = {}
    sets: dict[str, np.ndarray] = {}
    for name in features:
        vectors = read_vectors(layout, name)
        learn = partial(map_to_factors, vectors, data, seed)
        learners[f"{name}-mapped"] = learn
        sets |= {name: vectors, f"{name}-mapped": learn(np.zeros(0, np.int64))}

    tasks = build_tasks(data)
    answers, _ = answer_sets(tasks, sets.items(), [CUTOFF])
    for probe, task in tasks.items():
        if isinstance(task, ColdItems):  # each draw hides other items
            for name, learn in learners.items():
                answers[probe][name] = profiles.cold_recalls(task.draws, learn, CUTOFF)

    summaries = summarise_answers(tasks, answers, [CUTOFF])
    asked = [probe for probe, summary in summaries.items() if "skipped" not in summary]
    rows = []
    for name in sets:
        cells = []
        for probe in asked:
            figure, figures = PROBES[probe].figure, summaries[probe][name]
            cells.append(with_error(figures[figure], figures[f"{figure}_se"]))
        rows.append([name, *cells])
    head = ("features", *(f"{PROBES[probe].name} {PROBES[probe].figure}" for probe in asked))
    record(layout, "mapped", Table("", NOTE, head, rows))


if __name__ == "__main__":
    typer.run(main)
