"""Figures of runs by user history and item popularity, and in the long tail.

Letters: N test users, K cutoff, I items, P pairs of test user and target, C candidates, n members
of a group.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel, rankings_path, read_runs
from alignrec.pipeline.evaluation.benchmark.experiment import Experiment, read_evaluation
from alignrec.pipeline.evaluation.benchmark.params import Benchmark, Study
from alignrec.pipeline.evaluation.benchmark.significance import declare_pairs
from alignrec.pipeline.evaluation.protocol import Protocol
from alignrec.pipeline.evaluation.statistics import (
    RESAMPLES,
    holm,
    paired_bootstrap,
    resample_means,
)
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.cutoff import headline_cutoff
from alignrec.pipeline.models.metrics import Evaluation
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

# groups of users by train interactions: label and inclusive bounds; in 5-core data users have at
# least three
HISTORIES = {
    "1": (1, 1),
    "2": (2, 2),
    "3": (3, 3),
    "4-5": (4, 5),
    "6-9": (6, 9),
    "10-19": (10, 19),
    "20+": (20, np.inf),
}
N_POPULARITY_PARTS = 10  # of the warm items, by popularity
USER_METRICS = ("recall", "ndcg")
MIN_TARGETS_PER_PART = 50  # with fewer in a tenth of the items, the long tail uses thirds
TENTH_LABELS = {number: str(number) for number in range(1, N_POPULARITY_PARTS + 1)}
THIRDS = {1: "tail", 2: "middle", 3: "head"}
COLD = {0: "cold"}
Candidates = Mapping[tuple[str, str], list[int]]  # (model, feature set) -> seeds


class SliceFigure(NamedTuple):
    """A row of table SLICES, except the columns that identify the run."""

    slice: str
    label: str
    n: int
    metric: str
    k: int
    value: float | None  # None where n is 0


def slice_figures(evaluation: Evaluation, split: Split, ks: Sequence[int]) -> Iterator[SliceFigure]:
    for label, members in by_history(split, evaluation.users):
        for metric in USER_METRICS:
            for k in ks:
                values = evaluation.per_user[metric, k][members]
                yield _mean_figure("history", label, metric, k, values)

    yield from popularity_figures(evaluation, split, ks)


def by_history(split: Split, users: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each group's label and its members, bool [N]."""
    length = np.bincount(split.train.users, minlength=split.n_users)[users]
    for label, (shortest, longest) in HISTORIES.items():
        yield label, (length >= shortest) & (length <= longest)


def popularity_figures(
    evaluation: Evaluation, split: Split, ks: Sequence[int]
) -> Iterator[SliceFigure]:
    """Yield recall of targets by popularity; n counts targets."""
    part = popularity_parts(split)
    part_of_target = part[split.test.items]
    user_of_target = np.searchsorted(evaluation.users, split.test.users)
    hit = evaluation.top[user_of_target] == split.test.items[:, None]  # [P, max K]

    for number, label in (COLD | TENTH_LABELS).items():
        of_part = part_of_target == number
        for k in ks:
            yield _mean_figure("popularity", label, "recall", k, hit[of_part, :k].any(1))


def popularity_parts(split: Split, n: int = N_POPULARITY_PARTS) -> np.ndarray:
    """Return each item's quantile by train interactions, int64 [I].

    They are 1 (fewest) to n, or 0 for cold items.
    """
    counts = np.bincount(split.train.items, minlength=split.n_items)
    warm = np.flatnonzero(counts)
    rank = np.argsort(np.argsort(counts[warm], kind="stable"), kind="stable")

    part = np.zeros(split.n_items, np.int64)
    part[warm] = 1 + rank * n // len(warm)
    return part


def _mean_figure(name: str, label: str, metric: str, k: int, values: np.ndarray) -> SliceFigure:
    mean = float(values.mean()) if len(values) else None
    return SliceFigure(name, label, len(values), metric, k, mean)


class SliceMembers(NamedTuple):
    """A group of test users or targets."""

    slice: str  # popularity or history
    label: str
    members: np.ndarray  # bool [P] of popularity, bool [N] of history


def tail_tables(experiment: Experiment) -> dict[str, pa.Table]:
    """Compare AlignRec with other models by popularity and history (method.md section 6)."""
    rows: list[dict[str, Any]] = []
    if experiment.params[Study].tail:
        for protocol in experiment.rules.variants:
            rows += _tail_rows(experiment, protocol)

    tests = [row for row in rows if "p" in row]
    corrected = holm(np.array([row["p"] for row in tests]))
    for row, p in zip(tests, corrected, strict=True):
        row["p_holm"] = float(p)
    return {"tail.parquet": pa.Table.from_pylist(rows, schemas.TAIL)}


def _tail_rows(experiment: Experiment, protocol: Protocol) -> list[dict[str, Any]]:
    params = experiment.params
    layout = experiment.layout
    split = experiment.split
    k = headline_cutoff(params[Benchmark].ks)
    candidates = _runs_of_first_draw(layout)
    recalls = _recalls_by_slice(layout, candidates, split, k, protocol.suffix)
    header = {"dataset": experiment.dataset, **protocol.label, "k": k}
    reference = params[TrainSettings].features
    seed = seed_for("tail", experiment.dataset)

    rows = []
    for group in tail_groups(split):
        values = recalls[group.slice][group.members]
        figures = compare_in_group(group, values, candidates, reference, seed)
        rows += [header | row for row in figures]
    return rows


def _runs_of_first_draw(layout: Layout) -> Candidates:
    io.present([layout.runs])
    draws = len(layout.draws())
    seeds: dict[tuple[str, str], list[int]] = {}
    for label in read_runs(layout):
        if not label.ablation and label.seed % draws == 0:
            seeds.setdefault((label.model, label.features), []).append(label.seed)
    return {name: sorted(numbers) for name, numbers in seeds.items()}


def tail_groups(split: Split) -> Iterator[SliceMembers]:
    labels = TENTH_LABELS
    part = popularity_parts(split)[split.test.items]
    warm = part[part > 0]
    if (
        len(warm)
        and np.bincount(warm, minlength=N_POPULARITY_PARTS + 1)[1:].min() < MIN_TARGETS_PER_PART
    ):
        labels = THIRDS
        part = popularity_parts(split, len(THIRDS))[split.test.items]
    for number, label in (COLD | labels).items():
        members = part == number
        if members.any():
            yield SliceMembers("popularity", label, members)

    for label, members in by_history(split, np.unique(split.test.users)):
        if members.any():
            yield SliceMembers("history", label, members)


def compare_in_group(
    group: SliceMembers, values: np.ndarray, candidates: Candidates, reference: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield each candidate's mean recall with its interval, and AlignRec's lead.

    `values` are float64 [n, C].
    """
    low, high = np.quantile(resample_means(values, RESAMPLES, seed), [0.025, 0.975], axis=0)
    tests = _leads(values, [*candidates], reference, seed)
    for i, ((model, features), seeds) in enumerate(candidates.items()):
        yield {
            "slice": group.slice,
            "label": group.label,
            "model": model,
            "features": features,
            "seeds": len(seeds),
            "n": len(values),
            "mean": float(values[:, i].mean()),
            "mean_low": max(0.0, float(low[i])),
            "mean_high": min(1.0, float(high[i])),
            **tests.get((model, features), {}),
        }


def _leads(
    values: np.ndarray, names: list[tuple[str, str]], reference: str, seed: int
) -> dict[tuple[str, str], dict[str, float]]:
    """Test AlignRec on `reference` against its declared rivals; values are float64 [n, C]."""
    # only pairs that the benchmark declares: with more tests, no corrected p could be below .05
    labels = [CellLabel(model, features, 0) for model, features in names]
    released = CellLabel(RELEASED, reference, 0)
    pairs = declare_pairs(labels, reference)
    rivals = [(b.model, b.features) for a, b in pairs if a == released]
    if not rivals:
        return {}

    columns = [names.index(rival) for rival in rivals]
    ours = np.repeat(values[:, [labels.index(released)]], len(rivals), axis=1)
    leads = {}
    tests = paired_bootstrap(ours, values[:, columns], seed)
    for rival, test in zip(rivals, tests, strict=True):
        leads[rival] = {
            "difference": test.difference,
            "low": test.low,
            "high": test.high,
            "p": test.p,
        }
    return leads


def _recalls_by_slice(
    layout: Layout, candidates: Candidates, split: Split, k: int, suffix: str
) -> dict[str, np.ndarray]:
    """Return recall averaged over seeds, history -> [N, C] and popularity -> [P, C], float64."""
    test_users, user_of_target = np.unique(split.test.users, return_inverse=True)
    by_user = []
    by_target = []
    for (model, features), seeds in candidates.items():
        recall = np.zeros(len(test_users))
        hit = np.zeros(len(user_of_target))
        for seed in seeds:
            path = rankings_path(layout, CellLabel(model, features, seed), suffix)
            evaluation = read_evaluation(path, split, [k])
            recommended = evaluation.top[user_of_target, :k]
            recall += evaluation.per_user["recall", k] / len(seeds)
            hit += (recommended == split.test.items[:, None]).any(1) / len(seeds)
        by_user.append(recall)
        by_target.append(hit)
    return {"history": np.stack(by_user, 1), "popularity": np.stack(by_target, 1)}
