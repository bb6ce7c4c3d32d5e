"""Table LEAGUE, a row per training, and its paired tests, gains of features and stability of ranks.

Letters: U users, C contenders, B blocks (a split and a seed), N test users of a split, K cutoff.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.evaluation.metrics import Evaluation
from pipeline.evaluation.statistics import LEVEL, corrected
from pipeline.experiment.cell import RECALL
from pipeline.experiment.plans.league import Contender, LeagueRun, Played, Season
from pipeline.experiment.store import Record
from pipeline.interactions.audit import audit
from pipeline.seeds import seed_for


def table(own: Season, played: Played) -> pa.Table:
    costs = own.experiment.costs
    best, rows = _by_test(own, played), []
    for one, record in played.found.items():
        path = costs / f"{record.key}.json" if costs else None
        cost = io.read_json(path) if path and path.is_file() else {"seconds": None, "memory_mib": None, "machine": ""}
        rows.append(
            {"dataset": own.experiment.dataset, **one.contender._asdict(), "split": one.split, "number": one.number,
             "seed": one.seed, "setting": json.dumps(own.settings[one.contender.model][one.number]),
             **own.rules[one.split].label, "budget": max(own.benchmark.budget, 1), "k": own.k,
             "state": record.values["state"], "valid": record.best.get(RECALL),
             **{m: _test(own, record, m) if record.judged else None for m in ("recall", "ndcg")},
             "by_valid": played.chosen.get((one.contender, one.split)) == one.number,
             "by_test": best.get(one.contender) == one, **cost}
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schemas.LEAGUE)


def _by_test(own: Season, played: Played) -> dict[Contender, LeagueRun]:
    first = [one for one, record in played.found.items() if record.judged and not (one.split or one.seed)]
    best: dict[Contender, LeagueRun] = {}
    for one in first:
        best[one.contender] = max(best.get(one.contender, one), one, key=lambda run: _test(own, played.found[run]))
    return best


def _test(own: Season, record: Record, metric: str = "recall") -> float:
    return float(record.judged[0]["metrics"]["test"][f"{metric}@{own.k}"])


def derived(own: Season, played: Played) -> dict[str, Any]:
    """Return league.json.

    Returns:
        pairs: paired tests of every two main contenders, the better by rank first; gains: of a model on the judged set
        and on another; rows as of `statistics.corrected`. ranks: main contender -> mean rank over blocks; groups: of
        neighbours in rank without a significant difference. stability: mean Kendall's tau between rankings. audit: of
        the dataset's own split. left_out: model, or contender whose settings all failed -> reason.
    """
    ended = [one for one in own.contenders if all((one, split) in played.chosen for split in range(len(own.splits)))]
    users = {
        one: _users(own, (r.evaluation("", own.splits[at[0]], [own.k]) for at, r in _runs(own, played, one)))
        for one in ended
    }
    main = [one for one in own.main if one in ended]
    ranks = np.nanmean(_ranks(_blocks(own, played, main)), axis=0)
    main = [main[i] for i in np.argsort(ranks, kind="stable")]
    seed, name = seed_for("league", own.experiment.dataset), f"recall@{own.k}"
    pairs = [(name, a.name, b.name, users[a], users[b]) for a, b in combinations(main, 2)]
    gains = [
        (one.model, one.name, other.name, users[one], users[other])
        for one, other in product(main, ended)
        if other.model == one.model and other != one
    ]
    tested = corrected(pairs, seed) if pairs else []
    blocks = _blocks(own, played, main)
    level = {frozenset((row["a"], row["b"])) for row in tested if row["p_holm"] >= LEVEL}
    best = {one: _test(own, played.found[run]) for one, run in _by_test(own, played).items()}
    rows = own.experiment.run.read(own.layouts[0].interactions, schemas.INTERACTIONS)
    return {
        "pairs": tested,
        "gains": corrected(gains, seed) if gains else [],
        "ranks": dict(zip((one.name for one in main), sorted(ranks.tolist()), strict=True)),
        "groups": groups([one.name for one in main], level),
        "stability": stability(blocks, [best[one] for one in main]),
        "audit": audit(rows, own.splits[0].n_items, seed),
        "left_out": own.left_out | {one.name: _failure(played, one) for one in own.contenders if one not in ended},
    }


def _failure(played: Played, one: Contender) -> str:
    reason = next(r.values["reason"] for key, r in played.found.items() if key.contender == one and not r.judged)
    return f"{one.name}: on some split none of its settings trained to the end; the first: {reason}"


def _runs(own: Season, played: Played, one: Contender) -> Iterator[tuple[tuple[int, int], Record]]:
    for split in range(len(own.splits)):
        for seed, record in played.runs(one, split, own.benchmark.seeds).items():
            yield (split, seed), record


def _users(own: Season, found: Iterable[Evaluation]) -> np.ndarray:
    """Return each user's mean recall over the runs that ask about the user, float64 [U]."""
    total, times = np.zeros(own.splits[0].n_users), np.zeros(own.splits[0].n_users)
    for run in found:
        total[run.users] += run.per_user["recall", own.k]
        times[run.users] += 1
    return total[times > 0] / times[times > 0]


def _blocks(own: Season, played: Played, main: Sequence[Contender]) -> np.ndarray:
    """Return test recall, float64 [splits, seeds, C]; not a number where a run failed."""
    figures = np.full((len(own.splits), own.benchmark.seeds, len(main)), np.nan)
    for column, one in enumerate(main):
        for block, record in _runs(own, played, one):
            figures[*block, column] = _test(own, record)
    return figures


def _ranks(blocks: np.ndarray) -> np.ndarray:
    """Return ranks from 1, the highest first and equal ones shared, float64 [B, C]; none of a failed run."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-blocks.reshape(-1, blocks.shape[-1]), axis=1, nan_policy="omit"))


def groups(order: Sequence[str], level: set[frozenset[str]]) -> list[list[str]]:
    """Return the longest runs of two or more names, by rank, whose pairs are all in `level` (not significant)."""
    runs: list[list[str]] = []
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and all(frozenset((one, order[end])) in level for one in order[start:end]):
            end += 1
        if end - start > 1 and not (runs and order[end - 1] in runs[-1]):
            runs.append([*order[start:end]])
    return runs


def stability(blocks: np.ndarray, published: Sequence[float]) -> dict[str, float | None]:
    """Return Kendall's tau, means over pairs of rankings; null for a single one.

    Between seeds of a split, between splits (means over seeds), and between the figures that test chose, float [C], and
    the honest means of blocks, float64 [splits, seeds, C].
    """
    from scipy.stats import kendalltau

    def tau(rows: Sequence[Any]) -> list[float]:
        found = [float(kendalltau(a, b, nan_policy="omit").statistic) for a, b in combinations(rows, 2)]
        return [value for value in found if np.isfinite(value)]

    means = np.nanmean(blocks, axis=1)
    if blocks.shape[-1] < 2:
        return dict.fromkeys(("seeds", "splits", "published"))
    each = {
        "seeds": [value for split in blocks for value in tau(split)],
        "splits": tau(means),
        "published": tau([np.asarray(published), means.mean(0)]),
    }
    return {name: float(np.mean(values)) if values else None for name, values in each.items()}
