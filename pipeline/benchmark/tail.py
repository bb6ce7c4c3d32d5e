"""The long tail (method.md section 6): AlignRec against other models by popularity and history.

Letters: N test users, P pairs of test user and target, C candidates, n members of a group.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark import slices
from alignrec.pipeline.benchmark.cell import Entry, rankings_path, read_runs
from alignrec.pipeline.benchmark.experiment import Experiment, read_evaluation
from alignrec.pipeline.benchmark.params import Benchmark, Study
from alignrec.pipeline.benchmark.significance import declare_pairs
from alignrec.pipeline.evaluation.cutoff import headline_cutoff
from alignrec.pipeline.evaluation.evidence import group_values
from alignrec.pipeline.evaluation.statistics import RESAMPLES, holm, paired_bootstrap, resample_means
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.interactions.split import Split
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.train.params import Released

THIN = 50  # if a tenth of the items has fewer targets, thirds are used instead
THIRDS = {1: "tail", 2: "middle", 3: "head"}
Candidates = Mapping[tuple[str, str], list[int]]  # (model, feature set) -> seeds


class Group(NamedTuple):
    """A group of test users or targets."""

    slice: str  # popularity or history
    label: str
    members: np.ndarray  # bool [P] of popularity, bool [N] of history


def tail_tables(experiment: Experiment) -> dict[str, pa.Table]:
    params, split, rows = experiment.params, experiment.split, list[dict[str, Any]]()
    if params[Study].tail:
        k, candidates = headline_cutoff(params[Benchmark].ks), _read_candidates(experiment.layout)
        reference, seed = params[Released].features, seed_for("tail", experiment.dataset)
        for protocol in experiment.rules.variants:
            recalls = _recalls_by_slice(experiment.layout, candidates, split, k, protocol.suffix)
            label = {"dataset": experiment.dataset, **protocol.label, "k": k}
            for group in tail_groups(split):
                values = recalls[group.slice][group.members]
                rows += [label | row for row in compare_in_group(group, values, candidates, reference, seed)]
    tests = [row for row in rows if "p" in row]
    for row, p in zip(tests, holm(np.array([row["p"] for row in tests])), strict=True):
        row["p_holm"] = float(p)
    return {"tail.parquet": pa.Table.from_pylist(rows, schemas.TAIL)}


def tail_groups(split: Split) -> Iterator[Group]:
    part, labels = slices.popularity_parts(split)[split.test.items], {n: str(n) for n in range(1, slices.PARTS + 1)}
    warm = part[part > 0]
    if len(warm) and np.bincount(warm, minlength=slices.PARTS + 1)[1:].min() < THIN:
        part, labels = slices.popularity_parts(split, len(THIRDS))[split.test.items], THIRDS
    for number, label in {0: "cold", **labels}.items():
        if (part == number).any():
            yield Group("popularity", label, part == number)
    for label, chosen in slices.by_history(split, np.unique(split.test.users)):
        if chosen.any():
            yield Group("history", label, chosen)


def compare_in_group(
    group: Group, values: np.ndarray, candidates: Candidates, reference: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield each candidate's mean recall with its interval, and AlignRec's lead; values are float64 [n, C]."""
    low, high = np.quantile(resample_means(values, RESAMPLES, seed), [0.025, 0.975], axis=0)
    names, others = list(candidates), tested_opponents(candidates, reference)
    tests: dict[tuple[str, str], dict[str, Any]] = {}
    if others:
        columns = [names.index(other) for other in others]
        ours = np.repeat(values[:, [names.index((RELEASED, reference))]], len(others), axis=1)
        for other, test in zip(others, paired_bootstrap(ours, values[:, columns], seed), strict=True):
            tests[other] = {key: getattr(test, key) for key in ("difference", "low", "high", "p")}
    for i, (model, features) in enumerate(names):
        yield {
            "slice": group.slice, "label": group.label, "model": model, "features": features,
            "seeds": len(candidates[model, features]), "n": len(values), "mean": float(values[:, i].mean()),
            "mean_low": max(0.0, float(low[i])), "mean_high": min(1.0, float(high[i])),
            **tests.get((model, features), {}),
        }  # fmt: skip


def tested_opponents(candidates: Iterable[tuple[str, str]], reference: str) -> list[tuple[str, str]]:
    # only pairs that the benchmark declares: with more, no p could fall below .05 after correction
    pairs = declare_pairs([Entry(*name, 0) for name in candidates], reference)
    return [(b.model, b.features) for a, b in pairs if (a.model, a.features) == (RELEASED, reference)]


def _read_candidates(layout: Layout) -> Candidates:
    draws = len(layout.draws())
    io.present([layout.runs])
    first = (entry for entry in read_runs(layout) if not entry.ablation and entry.seed % draws == 0)
    seeds = group_values(((entry.model, entry.features), entry.seed) for entry in first)
    return {name: sorted(numbers) for name, numbers in seeds.items()}


def _recalls_by_slice(
    layout: Layout, candidates: Candidates, split: Split, k: int, suffix: str
) -> dict[str, np.ndarray]:
    """Return recall averaged over seeds: history -> float64 [N, C], popularity -> float64 [P, C]."""
    users, targets = [], []
    rows = np.searchsorted(np.unique(split.test.users), split.test.users)
    for (model, features), seeds in candidates.items():
        recall, hit = np.zeros(rows.max(initial=-1) + 1), np.zeros(len(rows))
        for seed in seeds:
            per_run = read_evaluation(rankings_path(layout, Entry(model, features, seed), suffix), split, [k])
            recall += per_run.per_user["recall", k] / len(seeds)
            hit += (per_run.top[rows, :k] == split.test.items[:, None]).any(1) / len(seeds)
        users.append(recall)
        targets.append(hit)
    return {"history": np.stack(users, 1), "popularity": np.stack(targets, 1)}
