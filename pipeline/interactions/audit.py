"""Audit of a split: repeats, leaks in time, cold users and items, shift of popularity."""

from typing import Any

import numpy as np
import pyarrow as pa

import schemas
from pipeline.sources.sql import connected

DRAWS = 20  # random divisions that the shift of popularity is held against
SQL = """WITH train AS (SELECT * FROM rows WHERE split = 0), test AS (SELECT * FROM rows WHERE split = 2),
    known AS (SELECT user_id, max(timestamp) AS latest FROM train GROUP BY user_id),
    popular AS (SELECT item_id FROM train GROUP BY item_id ORDER BY count(*) DESC, item_id LIMIT {tenth}),
    pairs AS (SELECT count(*) AS n, min(split) AS low, max(split) AS high FROM rows GROUP BY user_id, item_id)
SELECT (SELECT coalesce(sum(n - 1), 0) FROM pairs) AS repeated_pairs,
    (SELECT count(*) FROM pairs WHERE low = 0 AND high > 0) AS pairs_in_train_and_later,
    (SELECT count(DISTINCT user_id) FROM rows WHERE user_id NOT IN (SELECT user_id FROM known)) AS cold_users,
    {items} - (SELECT count(DISTINCT item_id) FROM train) AS cold_items,
    (SELECT avg((item_id NOT IN (SELECT item_id FROM train))::INT) FROM test) AS cold_targets,
    (SELECT avg((timestamp < latest)::INT) FROM test JOIN known USING (user_id)) AS test_before_own_train,
    (SELECT avg((timestamp > (SELECT min(timestamp) FROM test))::INT) FROM train) AS train_after_first_test,
    (SELECT avg((item_id IN (SELECT item_id FROM popular))::INT) FROM train) AS popular_in_train,
    (SELECT avg((item_id IN (SELECT item_id FROM popular))::INT) FROM test) AS popular_in_test"""


def audit(interactions: pa.Table, n_items: int, seed: int) -> dict[str, Any]:
    """Return counts and shares of a read table INTERACTIONS, JSON; null where there is no time.

    Cold users and items have no train rows. Shares of test rows: cold_targets, test_before_own_train (older than the
    user's latest train row). Shares of rows on the tenth of the items that train has most of: popular_in_train,
    popular_in_test. shift is half the sum of absolute differences of train's and test's shares of items, and
    shift_by_chance its mean where test's rows are drawn from all, with a seed.
    """
    with connected() as db:
        db.register("rows", interactions)
        sql = SQL.format(items=n_items, tenth=max(1, n_items // 10))
        found = db.sql(sql).to_arrow_table().to_pylist()[0]
    if schemas.clock(interactions) == "none":
        found |= dict.fromkeys(("test_before_own_train", "train_after_first_test"))
    items, part = interactions["item_id"].to_numpy(), interactions["split"].to_numpy()
    used, rng = part != schemas.VALID, np.random.default_rng(seed)
    items, test = items[used], part[used] == schemas.TEST
    drawn = [_shift(items, rng.permutation(test), n_items) for _ in range(DRAWS)]
    shifts = {"shift": _shift(items, test, n_items), "shift_by_chance": float(np.mean(drawn))}
    return {key: value if value is None else float(value) for key, value in (found | shifts).items()}


def _shift(items: np.ndarray, test: np.ndarray, n_items: int) -> float:
    shares = [np.bincount(items[rows], minlength=n_items) / max(rows.sum(), 1) for rows in (test, ~test)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
