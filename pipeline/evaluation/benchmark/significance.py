"""Pairs of runs to compare, fixed before training, and their paired tests.

Letters: N test users, D draws, K cutoff.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline.evaluation.benchmark.cell import NO_FEATURES, CellLabel
from alignrec.pipeline.evaluation.statistics import holm, paired_bootstrap
from alignrec.pipeline.models import RELEASED
from alignrec.pipeline.runtime.seeds import seed_for

TESTED_METRICS = ("recall", "ndcg")
Pair = tuple[CellLabel, CellLabel]  # both with seed 0
FiguresByRun = Mapping[CellLabel, Mapping[str, np.ndarray]]


def declare_pairs(
    labels: Sequence[CellLabel], reference: str, control: str | None = None
) -> list[Pair]:
    first = [label._replace(seed=0) for label in labels]
    kinds = list(dict.fromkeys(first))
    full = [kind for kind in kinds if kind.model == RELEASED and not kind.ablation]
    rivals = [kind for kind in kinds if kind.model != RELEASED]
    pairs: list[Pair] = []

    # AlignRec on every feature set against each other model, on the same features or on ids only
    for kind in full:
        shared = (kind.features, NO_FEATURES)
        pairs += [(kind, rival) for rival in rivals if rival.features in shared]

    # AlignRec on `reference` against itself on every other feature set, and against each ablation
    base = CellLabel(RELEASED, reference, 0)
    if base in full:
        pairs += [(base, kind) for kind in kinds if kind.model == RELEASED and kind != base]

    # each model on every feature set against itself on the control
    for kind in kinds:
        on_control = CellLabel(kind.model, control or "", 0)
        is_full = not kind.ablation and kind.features != NO_FEATURES
        if is_full and kind != on_control and on_control in kinds:
            pairs.append((kind, on_control))
    return list(dict.fromkeys(pairs))


def paired_tests(
    judged: Sequence[tuple[dict[str, Any], FiguresByRun]],
    reference: str,
    k: int,
    control: str | None,
    draws: int,
) -> pa.Table:
    """Return table TESTS of all declared pairs, with p corrected over all of them.

    `judged` pairs the columns of each protocol with label of a run -> metric -> float64 [N], NaN
    without a target in the run's draw.
    """
    rows: list[dict[str, Any]] = []
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for header, per_user in judged:
        for a, b in declare_pairs(list(per_user), reference, control):
            seeds = _common_seeds(per_user, a, b)
            columns = header | _columns_of(a, "a") | _columns_of(b, "b")
            for metric in TESTED_METRICS:
                rows.append(columns | {"metric": metric, "k": k, "seeds": len(seeds)})
                left.append(_mean_by_draw(per_user, a, metric, seeds, draws))
                right.append(_mean_by_draw(per_user, b, metric, seeds, draws))
    if not rows:
        return schemas.TESTS.empty_table()

    seed = seed_for("tests", rows[0]["dataset"])
    results = paired_bootstrap(np.stack(left, 2), np.stack(right, 2), seed)
    corrected = holm(np.array([test.p for test in results]))
    for row, test, p in zip(rows, results, corrected, strict=True):
        row |= test._asdict() | {"p_holm": float(p)}
    return pa.Table.from_pylist(rows, schemas.TESTS)


def _common_seeds(per_user: FiguresByRun, a: CellLabel, b: CellLabel) -> list[int]:
    return [
        seed
        for seed in sorted({label.seed for label in per_user})
        if a._replace(seed=seed) in per_user and b._replace(seed=seed) in per_user
    ]


def _columns_of(label: CellLabel, side: str) -> dict[str, str]:
    return {
        f"model_{side}": label.model,
        f"features_{side}": label.features,
        f"ablation_{side}": label.ablation,
    }


def _mean_by_draw(
    per_user: FiguresByRun, kind: CellLabel, metric: str, seeds: Sequence[int], draws: int
) -> np.ndarray:
    """Average over the seeds of each draw, [N, D], as the test resamples users and draws."""
    means = []
    for draw in range(draws):
        of_draw = [seed for seed in seeds if seed % draws == draw]
        values = [per_user[kind._replace(seed=seed)][metric] for seed in of_draw]
        means.append(np.mean(values, axis=0))
    return np.stack(means, axis=1)
