"""Pairs of runs to compare, fixed before training, and their paired tests. Letters: N test users, D draws, K cutoff."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.benchmark.cell import NO_FEATURES, Entry
from alignrec.pipeline.benchmark.plan import Compared
from alignrec.pipeline.evaluation.cutoff import CUTOFF
from alignrec.pipeline.evaluation.evidence import mean_and_sd
from alignrec.pipeline.evaluation.statistics import corrected_tests, holm, paired_bootstrap
from alignrec.pipeline.features.names import CEILINGS
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.runtime.seeds import seed_for

METRICS = ("recall", "ndcg")
COLUMNS = (
    "model",
    "features",
    "ablation",
)  # identify the runs of a test, which differ only in their seed


def declare_pairs(
    entries: Sequence[Entry], reference: str, control: str | None = None
) -> list[tuple[Entry, Entry]]:
    kinds = list(
        dict.fromkeys(entry._replace(seed=0) for entry in entries if entry.features not in CEILINGS)
    )
    full = [kind for kind in kinds if kind.model == RELEASED and not kind.ablation]
    # AlignRec on every feature set against each other model, on the same features or on ids only
    pairs = [
        (kind, other)
        for kind in full
        for other in kinds
        if other.model != RELEASED and other.features in (kind.features, NO_FEATURES)
    ]
    # AlignRec on `reference` against itself on every other feature set, and against each ablation
    base = Entry(RELEASED, reference, 0)
    if base in full:
        pairs += [(base, other) for other in kinds if other.model == RELEASED and other != base]
    # each model on every feature set against itself on the control
    plain = [kind for kind in kinds if not kind.ablation and kind.features != NO_FEATURES]
    pairs += [
        (kind, other)
        for kind in plain
        for other in plain
        if other == Entry(kind.model, control or "", 0) and kind != other
    ]
    return list(dict.fromkeys(pairs))


def paired_tests(
    judged: Sequence[tuple[dict[str, Any], Mapping[Entry, Mapping[str, np.ndarray]]]],
    reference: str,
    k: int,
    control: str | None,
    draws: int,
) -> pa.Table:
    """Return table TESTS of all declared pairs, with p corrected over all of them.

    `judged` pairs each protocol's label with run -> metric -> float64 [N], NaN without a target in the run's draw.
    """
    rows: list[dict[str, Any]] = []
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    compared = [
        (*pair, a, b)
        for pair in judged
        for a, b in declare_pairs(list(pair[1]), reference, control)
    ]
    for named, per_user, a, b in compared:
        seeds = [
            n
            for n in sorted({e.seed for e in per_user})
            if {a._replace(seed=n), b._replace(seed=n)} <= per_user.keys()
        ]
        sides = {
            f"{name}_{side}": getattr(kind, name)
            for side, kind in (("a", a), ("b", b))
            for name in COLUMNS
        }
        for metric in METRICS:
            rows.append(named | sides | {"metric": metric, "k": k, "seeds": len(seeds)})
            # average over the seeds of a draw, as the test resamples users and draws
            for column, kind in ((left, a), (right, b)):
                by_draw = [[n for n in seeds if n % draws == draw] for draw in range(draws)]
                runs = [[per_user[kind._replace(seed=n)][metric] for n in own] for own in by_draw]
                column.append(np.stack([np.mean(own, axis=0) for own in runs], axis=1))  # [N, D]
    if not rows:
        return schemas.TESTS.empty_table()
    results = paired_bootstrap(
        np.stack(left, 2), np.stack(right, 2), seed_for("tests", rows[0]["dataset"])
    )
    corrected = holm(np.array([test.p for test in results]))
    each = zip(rows, results, corrected, strict=True)
    tested = [row | test._asdict() | {"p_holm": float(p)} for row, test, p in each]
    return pa.Table.from_pylist(tested, schemas.TESTS)


def summarise_recalls(
    recalls: Mapping[Compared, np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """Return mean and sd over seeds, and paired tests of every two sets over users, from recalls float64 [N]."""
    seeds = sorted({one.seed for one in recalls})
    recall: dict[str, Any] = {}
    comparisons: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    for model in dict.fromkeys(one.model for one in recalls):
        by_user = {
            name: np.mean([recalls[Compared(model, name, s)] for s in seeds], axis=0)
            for name in names
        }
        for name in names:
            figure = mean_and_sd([float(np.mean(recalls[Compared(model, name, s)])) for s in seeds])
            recall.setdefault(model, {})[name] = {
                "mean": figure.mean,
                "sd": figure.sd,
                "values": list(figure.values),
            }
        measure = f"{model} recall@{CUTOFF}"
        comparisons += [(measure, a, b, by_user[a], by_user[b]) for a, b in combinations(names, 2)]
    return {
        "seeds": len(seeds),
        f"recall@{CUTOFF}": recall,
        "paired": corrected_tests(comparisons, seed_for("compare", "tests")),
    }
