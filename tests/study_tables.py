"""Tables of the study whose figures are plain to see."""

from typing import Any

import pyarrow as pa

import schemas

JUDGED = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "e" * 16}
SURE = {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.001, "p_holm": 0.004}
UNSURE = {"difference": -0.02, "low": -0.05, "high": 0.01, "p": 0.2, "p_holm": 0.4}


def table(part: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([JUDGED | row for row in rows], schemas.STUDY[part])


def tail_table() -> pa.Table:
    mean = {"k": 20, "seeds": 3, "n": 7, "mean": 0.3, "mean_low": 0.25, "mean_high": 0.35}
    runs = ("alignrec", "beit3", {}), ("bpr", "none", SURE), ("alignrec", "tfidf", UNSURE), ("alignrec", "random", SURE)
    rows = [
        mean | {"slice": name, "label": label, "model": model, "features": features} | test
        for name, label in (("popularity", "tail"), ("popularity", "head"), ("history", "3"))
        for model, features, test in runs
    ]
    return table("tail", rows)
