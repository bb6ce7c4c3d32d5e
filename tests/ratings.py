"""Toy ratings, and their filter, numbering and split in plain pandas."""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from alignrec.pipeline.dataset.split_tables import SplitTables
from alignrec.schemas import TEST, TRAIN, VALID


class Whole(NamedTuple):
    interactions: pa.Table
    users: pa.Table
    item_ids: pa.Table
    rows: int
    drops: dict[str, int]
    facts: dict[str, int]
    division: str


def whole(actual: SplitTables) -> Whole:
    interactions, users, item_ids = (pa.concat_tables(rows) for rows in actual[:3])
    return Whole(interactions, users, item_ids, actual.rows, actual.drops, actual.facts, actual.division)


def table(text: str) -> pd.DataFrame:
    """Return ratings from `user item timestamp` triples."""
    rows = [t.split() for t in text.split(",")]
    columns = {"user": [r[0] for r in rows], "item": [r[1] for r in rows], "rating": np.float32(5)}
    return pd.DataFrame(columns | {"timestamp": [int(r[2]) for r in rows]})


def random_ratings(seed: int, n: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "user": [f"u{int(x)}" for x in rng.pareto(1.0, n) * 5],
            "item": [f"i{int(x)}" for x in rng.pareto(1.0, n) * 5],
            "rating": rng.integers(1, 6, n).astype(np.float32),
            "timestamp": rng.integers(0, 50, n),
        }
    )
    rows.loc[rng.random(n) < 0.02, "user"] = None
    rows["rating"] = rows["rating"].where(rng.random(n) >= 0.02)
    return pd.concat([rows, rows.sample(30, random_state=seed)])


def reference(rows: pd.DataFrame, user_core: int, item_core: int) -> pd.DataFrame:
    """Filter and number in plain pandas."""
    rows = rows.dropna().drop_duplicates(["user", "item", "timestamp"])
    while True:
        enough = rows.groupby("user")["item"].transform("size") >= user_core
        enough &= rows.groupby("item")["user"].transform("size") >= item_core
        if enough.all():
            break
        rows = rows[enough]
    return rows.assign(user_id=pd.factorize(rows["user"])[0], item_id=pd.factorize(rows["item"])[0])


def number(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little")


def name_key(name: str, seed: int) -> int:
    return number(f"{seed},{name}")


def row_keys(rows: pd.DataFrame, seed: int) -> list[int]:
    """Return numbers whose order is the random one; a missing time is no part of them."""
    keys = []
    for row in rows.itertuples():
        parts = [name_key(row.user, seed), name_key(row.item, seed)]
        if not pd.isna(row.timestamp):
            parts.append(row.timestamp)
        keys.append(number(",".join(map(str, parts))))
    return keys


def reference_split(rows: pd.DataFrame, protocol: str, seed: int) -> list[int]:
    """Split filtered, numbered rows per user; -1 for rows of users without train rows."""
    rows = rows.assign(key=row_keys(rows, seed), pos=range(len(rows)), split=TEST)
    times = rows["timestamp"].sort_values().to_numpy()
    for _, own in rows.groupby("user"):
        n = len(own)
        out = 2 if n < 10 else int(0.2 * n)
        valid = out // 2
        if protocol == "global-time":
            at = [times[math.ceil(q * len(times)) - 1] for q in (0.8, 0.9)]
            rows.loc[own.index, "split"] = np.searchsorted(at, own["timestamp"])
            continue
        order = own.sort_values(["key", "timestamp", "pos"] if protocol == "mmrec" else ["timestamp", "pos"]).index
        if protocol == "leave-one-out":
            out, valid = 2, 1
        if n >= 3:
            rows.loc[order, "split"] = [TRAIN] * (n - out) + [VALID] * valid + [TEST] * (out - valid)
        else:
            rows.loc[order, "split"] = TRAIN
    train_users = set(rows.loc[rows["split"] == TRAIN, "user"])
    return [s if u in train_users else -1 for s, u in zip(rows["split"], rows["user"], strict=True)]


def write_inter(path: Path, rows: list[tuple[int, int, int]]) -> None:
    """Write user, item and split in MMRec's format."""
    lines = "".join(f"{user}\t{item}\t5.0\t0\t{label}\n" for user, item, label in rows)
    path.write_text(f"userID\titemID\trating\ttimestamp\tx_label\n{lines}")


def inter(rows: list[tuple[int, int, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user", "item", "timestamp", "split"]).assign(rating=np.float32(5))
