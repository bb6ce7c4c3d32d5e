"""Split 20 million ratings (5-core, ids, 8:1:1 per user), compared with pandas, Polars and DuckDB, each at its best.

The stage `interactions` verifies the file, and writes sorted tables, names and a record. Before it, `download`
copies and hashes the file; its seconds are in `details`.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import Measurement, _turns, ingest

RATINGS = 20_000_000
NAMES = ["user", "item", "rating", "time"]
KEY = ["user", "item", "time"]
OUTPUTS = "outputs"


def run() -> Measurement:
    """Time each in new processes, including interpreter start and imports."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        ingest.make(raw, RATINGS)
        download = _turns.timed(_turns.alone, ingest.run_stage, "download", raw, raw / OUTPUTS)
        turns = {
            work.__name__: partial(_turns.timed, _turns.alone, ingest.peak, work, raw)
            for work in (interactions, pandas, polars, duckdb)
        }
        ways = _turns.take(turns, rounds=1)
        limit = _turns.timed((raw / "ratings.csv").read_bytes).wall
    details: dict[str, float] = {f"{name}_peak_mib": way.last for name, way in ways.items()}
    details["download_s"] = download.wall
    return Measurement(
        ways=ways,
        ours="interactions",
        reference="pandas",
        unit="s",
        higher_is_better=False,
        limit=limit,
        limit_is="reading the file",
        what=f"{RATINGS:,} ratings -> 5-core, ids, split, Parquet; before ours, `download` took "
        f"{_turns.short(download.wall)} s to copy and hash the file",
        details=details,
    )


def interactions(raw: Path) -> None:
    ingest.run_stage("interactions", raw, raw / OUTPUTS)


def pandas(raw: Path) -> None:
    import pandas as pd

    types: Any = {"user": "category", "item": "category", "rating": "f4", "time": "i8"}
    df = pd.read_csv(raw / "ratings.csv", names=NAMES, header=None, dtype=types).drop_duplicates(
        KEY
    )
    df["user"], df["item"] = df["user"].cat.codes, df["item"].cat.codes
    while True:
        few = [df[side].map(df[side].value_counts()) < 5 for side in ("user", "item")]
        if not (dropped := few[0] | few[1]).any():
            break
        df = df[~dropped]
    df["user"], df["item"] = pd.factorize(df["user"])[0], pd.factorize(df["item"])[0]
    place = df.sample(frac=1, random_state=0).groupby("user").cumcount()
    df["split"] = _label(
        place.reindex(df.index).to_numpy(), df["user"].map(df["user"].value_counts()).to_numpy()
    )
    df.to_parquet(raw / "pandas.parquet", index=False)


def polars(raw: Path) -> None:
    import polars as pl

    df = pl.scan_csv(raw / "ratings.csv", has_header=False, new_columns=NAMES).unique(KEY).collect()
    n = -1
    while n != len(df):
        n, df = len(df), df.filter((pl.len().over("user") >= 5) & (pl.len().over("item") >= 5))
    df = df.with_columns(
        pl.col("user", "item").cast(pl.Categorical).to_physical().rank("dense") - 1
    )
    place = pl.int_range(pl.len()).shuffle(seed=0).over("user")
    found = df.select(place.alias("place"), pl.len().over("user").alias("n"))
    split = _label(found["place"].to_numpy(), found["n"].to_numpy())
    df.with_columns(pl.Series("split", split)).write_parquet(raw / "polars.parquet")


def duckdb(raw: Path) -> None:
    import duckdb as db

    run = db.connect(config={"threads": 2}).execute
    table = f"read_csv('{raw}/ratings.csv', names=['a', 'b', 'c', 'd'])"
    run(f"CREATE TABLE r AS SELECT DISTINCT ON (a, b, d) * FROM {table}")
    few = "QUALIFY count(*) OVER (PARTITION BY a) >= 5 AND count(*) OVER (PARTITION BY b) >= 5"
    n = -1
    while n != (n := run("SELECT count(*) FROM r").fetchall()[0][0]):
        run(f"CREATE OR REPLACE TABLE r AS SELECT * FROM r {few}")
    of_user = "row_number() OVER (PARTITION BY a ORDER BY hash(a, b, d)) AS p, count(*) OVER (PARTITION BY a) AS n"
    ids = "dense_rank() OVER (ORDER BY a) - 1 AS u, dense_rank() OVER (ORDER BY b) - 1 AS i"
    split = (
        "CASE WHEN p <= n // 10 + 1 THEN 2 WHEN p <= 2 * (n // 10 + 1) THEN 1 ELSE 0 END AS split"
    )
    run(
        f"COPY (SELECT u, i, c, d, {split} FROM (SELECT *, {ids}, {of_user} FROM r)) TO '{raw}/duckdb.parquet'"
    )


def _label(place: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return 2 (test), 1 (valid) or 0 (train) for rows at `place` among the `n` of their user, in random order."""
    held = n // 10 + 1
    return np.where(place < held, 2, np.where(place < 2 * held, 1, 0)).astype(np.int8)
