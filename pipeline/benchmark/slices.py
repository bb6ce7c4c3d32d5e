"""Figures of runs by user history and item popularity, over the catalogue, and in the long tail.

Letters: N test users, K cutoff, I items, P pairs of test user and target, C candidates, n members of a group.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.cell import Entry, rankings_path, read_runs
from alignrec.pipeline.benchmark.experiment import Experiment, read_evaluation
from alignrec.pipeline.benchmark.params import Benchmark, Study
from alignrec.pipeline.benchmark.significance import declare_pairs
from alignrec.pipeline.dataset.split import Split
from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.evaluation.evidence import group_values
from alignrec.pipeline.evaluation.metrics import Evaluation
from alignrec.pipeline.evaluation.statistics import (
    RESAMPLES,
    holm,
    paired_bootstrap,
    resample_means,
)
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.models.training.params import TrainSettings
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

# inclusive bounds on train interactions for each group of users; in 5-core data users have at least three
HISTORIES = ((1, 1), (2, 2), (3, 3), (4, 5), (6, 9), (10, 19), (20, None))
PARTS = 10
USER_METRICS = ("recall", "ndcg")
THIN = 50  # with fewer targets in a tenth of the items, the long tail uses thirds
THIRDS = {1: "tail", 2: "middle", 3: "head"}
Candidates = Mapping[tuple[str, str], list[int]]  # (model, feature set) -> seeds


class Figure(NamedTuple):
    """A row of table SLICES, except the columns that identify the run."""

    slice: str
    label: str
    n: int
    metric: str
    k: int
    value: float | None  # None where n is 0


def slice_figures(evaluation: Evaluation, split: Split, ks: Sequence[int]) -> Iterator[Figure]:
    for label, chosen in by_history(split, evaluation.users):
        for metric in USER_METRICS:
            for k in ks:
                yield _mean_figure(
                    "history", label, metric, k, evaluation.per_user[metric, k][chosen]
                )
    yield from popularity_figures(evaluation, split, ks)
    # coverage: share of items recommended at least once
    # novelty: mean -log2 of the share of train users who have a recommended item; items without users count as one
    counts, users = np.bincount(split.train.items, minlength=split.n_items), len(evaluation.users)
    information = -np.log2(np.maximum(counts, 1) / len(np.unique(split.train.users)))
    for k in ks:
        recommended = evaluation.top[:, :k]
        recommended = recommended[recommended >= 0]
        places = np.bincount(recommended, minlength=split.n_items)
        novelty = float(information[recommended].mean()) if len(recommended) else None
        yield Figure(
            "catalogue", "all", users, "coverage", k, np.count_nonzero(places) / split.n_items
        )
        yield Figure("catalogue", "all", users, "gini", k, gini(places))
        yield Figure("catalogue", "all", users, "novelty", k, novelty)


def by_history(split: Split, users: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each group's label and its members, bool [N]."""
    length = np.bincount(split.train.users, minlength=split.n_users)[users]
    for first, last in HISTORIES:
        label = f"{first}+" if last is None else str(first) if first == last else f"{first}-{last}"
        yield label, (length >= first) & (length <= (last or np.inf))


def popularity_figures(evaluation: Evaluation, split: Split, ks: Sequence[int]) -> Iterator[Figure]:
    """Yield recall of targets and exposure (share of recommendations) by popularity; n counts targets."""
    part = popularity_parts(split)
    at = np.searchsorted(evaluation.users, split.test.users)
    hit = evaluation.top[at] == split.test.items[:, None]  # [P, max K]
    recommended = np.where(evaluation.top >= 0, part[evaluation.top], -1)  # [N, max K]
    for number in range(PARTS + 1):
        label = "cold" if number == 0 else str(number)
        of_part = part[split.test.items] == number
        n = int(of_part.sum())
        for k in ks:
            yield _mean_figure("popularity", label, "recall", k, hit[of_part, :k].any(1))
            share = float(
                (recommended[:, :k] == number).sum() / max(1, (recommended[:, :k] >= 0).sum())
            )
            yield Figure("popularity", label, n, "exposure", k, share)


def popularity_parts(split: Split, n: int = PARTS) -> np.ndarray:
    """Return each item's quantile by train interactions, 1 (fewest) .. n, or 0 for cold items, int64 [I]."""
    counts = np.bincount(split.train.items, minlength=split.n_items)
    warm = np.flatnonzero(counts)
    rank = np.argsort(np.argsort(counts[warm], kind="stable"), kind="stable")
    part = np.zeros(split.n_items, np.int64)
    part[warm] = 1 + rank * n // len(warm)
    return part


def gini(counts: np.ndarray) -> float | None:
    """Return the Gini coefficient of counts, int [I]; None if all are 0."""
    n, total = len(counts), counts.sum()
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float((weights * np.sort(counts)).sum() / (n * total)) if total else None


def _mean_figure(what: str, label: str, metric: str, k: int, values: np.ndarray) -> Figure:
    return Figure(
        what, label, len(values), metric, k, float(values.mean()) if len(values) else None
    )


class Group(NamedTuple):
    """A group of test users or targets."""

    slice: str  # popularity or history
    label: str
    members: np.ndarray  # bool [P] of popularity, bool [N] of history


def tail_tables(experiment: Experiment) -> dict[str, pa.Table]:
    """Compare AlignRec with other models by popularity and history (method.md section 6)."""
    params, split, rows = experiment.params, experiment.split, list[dict[str, Any]]()
    if params[Study].tail:
        layout, k = experiment.layout, headline_cutoff(params[Benchmark].ks)
        reference, seed = params[TrainSettings].features, seed_for("tail", experiment.dataset)
        draws = len(layout.draws())
        io.present([layout.runs])
        first = (
            entry for entry in read_runs(layout) if not entry.ablation and entry.seed % draws == 0
        )
        seeds = group_values(((entry.model, entry.features), entry.seed) for entry in first)
        candidates = {name: sorted(numbers) for name, numbers in seeds.items()}
        for protocol in experiment.rules.variants:
            recalls = _recalls_by_slice(layout, candidates, split, k, protocol.suffix)
            label = {"dataset": experiment.dataset, **protocol.label, "k": k}
            for group in tail_groups(split):
                values = recalls[group.slice][group.members]
                rows += [
                    label | row
                    for row in compare_in_group(group, values, candidates, reference, seed)
                ]
    tests = [row for row in rows if "p" in row]
    for row, p in zip(tests, holm(np.array([row["p"] for row in tests])), strict=True):
        row["p_holm"] = float(p)
    return {"tail.parquet": pa.Table.from_pylist(rows, schemas.TAIL)}


def tail_groups(split: Split) -> Iterator[Group]:
    part, labels = (
        popularity_parts(split)[split.test.items],
        {n: str(n) for n in range(1, PARTS + 1)},
    )
    warm = part[part > 0]
    if len(warm) and np.bincount(warm, minlength=PARTS + 1)[1:].min() < THIN:
        part, labels = popularity_parts(split, len(THIRDS))[split.test.items], THIRDS
    for number, label in {0: "cold", **labels}.items():
        if (part == number).any():
            yield Group("popularity", label, part == number)
    for label, chosen in by_history(split, np.unique(split.test.users)):
        if chosen.any():
            yield Group("history", label, chosen)


def compare_in_group(
    group: Group, values: np.ndarray, candidates: Candidates, reference: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield each candidate's mean recall with its interval, and AlignRec's lead; values are float64 [n, C]."""
    low, high = np.quantile(resample_means(values, RESAMPLES, seed), [0.025, 0.975], axis=0)
    # only pairs that the benchmark declares: with more tests, no corrected p could be below .05
    pairs = declare_pairs([Entry(*name, 0) for name in candidates], reference)
    others = [
        (b.model, b.features) for a, b in pairs if (a.model, a.features) == (RELEASED, reference)
    ]
    names = list(candidates)
    tests: dict[tuple[str, str], dict[str, Any]] = {}
    if others:
        columns = [names.index(other) for other in others]
        ours = np.repeat(values[:, [names.index((RELEASED, reference))]], len(others), axis=1)
        for other, test in zip(
            others, paired_bootstrap(ours, values[:, columns], seed), strict=True
        ):
            tests[other] = {key: getattr(test, key) for key in ("difference", "low", "high", "p")}
    for i, (model, features) in enumerate(names):
        yield {
            "slice": group.slice, "label": group.label, "model": model, "features": features,
            "seeds": len(candidates[model, features]), "n": len(values), "mean": float(values[:, i].mean()),
            "mean_low": max(0.0, float(low[i])), "mean_high": min(1.0, float(high[i])),
            **tests.get((model, features), {}),
        }  # fmt: skip


def _recalls_by_slice(
    layout: Layout, candidates: Candidates, split: Split, k: int, suffix: str
) -> dict[str, np.ndarray]:
    """Return recall averaged over seeds: history -> float64 [N, C], popularity -> float64 [P, C]."""
    users, targets = [], []
    rows = np.searchsorted(np.unique(split.test.users), split.test.users)
    for (model, features), seeds in candidates.items():
        recall, hit = np.zeros(rows.max(initial=-1) + 1), np.zeros(len(rows))
        for seed in seeds:
            per_run = read_evaluation(
                rankings_path(layout, Entry(model, features, seed), suffix), split, [k]
            )
            recall += per_run.per_user["recall", k] / len(seeds)
            hit += (per_run.top[rows, :k] == split.test.items[:, None]).any(1) / len(seeds)
        users.append(recall)
        targets.append(hit)
    return {"history": np.stack(users, 1), "popularity": np.stack(targets, 1)}
