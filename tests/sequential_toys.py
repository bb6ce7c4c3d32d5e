"""Toy sequences for the tests of sequential recommenders, and tables of what they might have come to."""

import numpy as np
import pyarrow as pa

import schemas
from pipeline.sequential import sequences
from pipeline.sequential.params import Generative
from pipeline.sequential.sequences import Sequences

STEP = 5
CYCLE = 12
"""items of the cycle"""
CODES = np.array([[i // 4, i % 4] for i in range(CYCLE)], np.int64)
"""ids of the cycle's items, all different"""


LABEL = {"dataset": "shop", "protocol": "strict, leave-one-out", "fingerprint": "e" * 16}
FIGURES = {
    ("tiger", "beit3", "residual-kmeans"): 0.3,
    ("tiger", "beit3", "random"): 0.1,
    ("sasrec", "none", "none"): 0.2,
}


def table(rows: list[tuple[int, int, int | None]]) -> pa.Table:
    """Return interactions of (user, item, time), schema INTERACTIONS."""
    users, items, times = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, pa.int32()),
            "item_id": pa.array(items, pa.int32()),
            "rating": pa.nulls(len(rows), pa.float32()),
            "timestamp": pa.array(times, pa.int64()),
            "split": pa.array([0] * len(rows), pa.int8()),
        }
    )


def cycle(users: int = 36, length: int = 9) -> Sequences:
    """Return users who go round a cycle of items, each from another start: item i is followed by i + STEP."""
    rows = [(u, (u + STEP * t) % CYCLE, t) for u in range(users) for t in range(length)]
    return sequences.load(table(rows), users, CYCLE)


def settings(**keys: object) -> Generative:
    """Return a small size and budget."""
    given = {"dim": 16, "epochs": 30, "patience": 30, "batch_size": 16, "length": 6, "ks": [1, 3], "beams": 8}
    return Generative.model_validate(given | {"dropout": 0.0} | keys)


def study() -> dict[str, pa.Table]:
    """Return three contenders over two seeds, a learning rate that was only tried, and popularity."""
    rows = [
        LABEL | {"model": m, "features": f, "method": c, "rate": 0.01, "seed": seed, "split": "test", "metric": metric,
                 "k": k, "value": value + 0.02 * seed, "best_epoch": 3}
        for (m, f, c), value in FIGURES.items() for seed in range(2) for metric in ("recall", "ndcg", "map")
        for k in (10, 20)
    ]  # fmt: skip
    rows += [row | {"rate": 0.5, "split": "valid", "value": 0.9} for row in rows[:4]]
    trivial = {"model": "popularity", "features": "none", "method": "none", "rate": None, "best_epoch": None, "seed": 0}
    rows += [row | trivial | {"value": 0.05} for row in rows[:6]]
    a, b = (dict(zip(("model", "features", "method"), one, strict=True)) for one in list(FIGURES)[:2])
    test = {"metric": "recall", "k": 20, "seeds": 2, "n": 9, "mean_a": 0.31, "mean_b": 0.11, "difference": 0.2}
    sides = {f"{key}_{side}": value for side, one in (("a", a), ("b", b)) for key, value in one.items()}
    sure = LABEL | sides | test | {"low": 0.1, "high": 0.3, "p": 0.001, "p_holm": 0.002}
    tests = [sure, sure | {"metric": "ndcg", "p_holm": 0.4}]
    return {
        "generative": pa.Table.from_pylist(rows, schemas.GENERATIVE),
        "generative_tests": pa.Table.from_pylist(tests, schemas.GENERATIVE_TESTS),
    }
