"""Toy sequences for the tests of sequential recommenders."""

import numpy as np
import pyarrow as pa

from pipeline.config.study import Generative
from pipeline.sequential import sequences
from pipeline.sequential.sequences import Sequences

STEP = 5
CYCLE = 12
"""items of the cycle"""
CODES = np.array([[i // 4, i % 4] for i in range(CYCLE)], np.int64)
"""ids of the cycle's items, all different"""


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
