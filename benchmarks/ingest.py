"""Convert raw Amazon files (2014 format, the size of Baby) to a split and an item table, compared with a notebook."""

from __future__ import annotations

import ast
import gzip
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from alignrec.pipeline.runtime import process
from benchmarks import Measurement, _turns

RATINGS, USERS, PRODUCTS = 915_446, 531_890, 64_426  # lines, users and products of ratings_Baby.csv
LINES = 71_317  # lines of meta_Baby.json.gz
# endings of descriptions, which put quotes and backslashes into the literal
QUIRKS = ["'s"] * 10 + ["'s 5\" one\n"] * 2 + [""] * 13


def run() -> Measurement:
    """Time both in new processes, including interpreter start and imports."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder)
        make(raw)
        turns = {
            work.__name__: partial(_turns.timed, _turns.alone, peak, work, raw)
            for work in (notebook, stages)
        }
        ways = _turns.take(turns)
        limit = _turns.timed(_turns.alone, _decompress, raw).wall
    return Measurement(
        ways=ways,
        ours="stages",
        reference="notebook",
        unit="s",
        higher_is_better=False,
        limit=limit,
        limit_is="reading both files and unpacking the metadata on one core, without parsing",
        what=f"{RATINGS:,} ratings and {LINES:,} metadata lines -> 5-core, ids, split, item table; the reference is "
        "what notebooks do: pandas, a loop over users, ast.literal_eval per line (a fifth slower than eval)",
        details={f"{name}_peak_mib": way.last for name, way in ways.items()},
    )


def make(raw: Path, ratings: int = RATINGS) -> None:
    """Write long-tailed ratings and metadata that resemble Baby."""
    # as in Baby: users, items, lines, and a tenth of the lines in the 5-core; assumed: 110 words and 60 related items
    # per line (2 KB), an apostrophe in 40 % of descriptions, for which Python prints double quotes, a backslash in 8 %
    rng = np.random.default_rng(0)
    scale = ratings / RATINGS
    users = _tail(rng, int(USERS * scale), ratings, 0.55)
    products = _tail(rng, PRODUCTS, ratings, 0.75)
    times = rng.integers(1_000_000_000, 1_400_000_000, ratings)
    stars = rng.integers(1, 6, ratings)
    with (raw / "ratings.csv").open("w") as f:
        for start in range(0, ratings, 1 << 20):  # blocks limit memory
            part = slice(start, start + (1 << 20))
            rows = zip(users[part], products[part], stars[part], times[part], strict=True)
            f.write("".join(f"A{u:013d},B{p:09d},{s}.0,{t}\n" for u, p, s, t in rows))
    words = np.array([f"word{i}" for i in range(5000)])
    with gzip.open(raw / "meta.json.gz", "wt", compresslevel=4) as f:
        for p in range(LINES):
            text = " ".join(words[rng.integers(0, 5000, 110)]) + QUIRKS[int(rng.integers(0, 25))]
            also = [f"B{q:09d}" for q in rng.integers(0, PRODUCTS, 60)]
            record = {
                "asin": f"B{p:09d}",
                "title": text[:60],
                "imUrl": f"http://e.com/{p}.jpg",
                "description": text,
                "related": {"also_bought": also},
                "categories": [["Baby", text[60:80]]],
            }
            f.write(f"{record!r}\n")


def _tail(rng: np.random.Generator, n: int, draws: int, power: float) -> np.ndarray:
    """Draw numbers below n with frequencies proportional to rank^-power."""
    ranks = (rng.random(draws) ** (1 / (1 - power)) * n).astype(np.int64)
    return rng.permutation(n)[ranks]


def stages(raw: Path) -> None:
    """Run the stages download, interactions and items."""
    # a new folder per turn, so that stages cannot reuse outputs
    outputs = Path(tempfile.mkdtemp(dir=raw))
    for stage in ("download", "interactions", "items"):
        run_stage(stage, raw, outputs)


def run_stage(name: str, raw: Path, outputs: Path) -> None:
    from alignrec.commands.params import Params
    from alignrec.pipeline.runtime.run import running
    from alignrec.stages.order import STAGES

    source = {
        "kind": "amazon2014",
        "reviews": str(raw / "ratings.csv"),
        "metadata": str(raw / "meta.json.gz"),
    }
    params = Params.model_validate({"datasets": ["baby"], "sources": {"baby": source}})
    with running(name, "baby", params, outputs) as run:
        STAGES[name].main(run)


def notebook(raw: Path) -> None:
    """Follow method.md section 6 as notebooks do."""
    # they use the unsafe eval: 138 us per line, 170 us for ast.literal_eval
    import pandas as pd

    df = pd.read_csv(
        raw / "ratings.csv", names=["user", "item", "rating", "timestamp"], header=None
    )
    df = df.dropna().drop_duplicates(["user", "item", "timestamp"])
    while True:
        users, items = df["user"].value_counts(), df["item"].value_counts()
        few_users, few_items = users[users < 5].index, items[items < 5].index
        if not len(few_users) and not len(few_items):
            break
        df = df[~df["user"].isin(few_users) & ~df["item"].isin(few_items)]
    user_ids = {u: i for i, u in enumerate(df["user"].unique())}
    item_ids = {a: i for i, a in enumerate(df["item"].unique())}
    df["userID"], df["itemID"] = df["user"].map(user_ids), df["item"].map(item_ids)
    df = df.sample(frac=1, random_state=0)
    labels = np.zeros(len(df), int)
    places = df.reset_index().groupby("userID").indices
    for rows in places.values():
        n = len(rows)
        vt = 2 if n < 10 else int(0.2 * n)
        labels[rows[n - vt :]] = 2
        labels[rows[n - vt : n - vt + vt // 2]] = 1
    df["x_label"] = labels
    df[["userID", "itemID", "rating", "timestamp", "x_label"]].to_csv(
        raw / "baby.inter", sep="\t", index=False
    )
    with gzip.open(raw / "meta.json.gz", "rt") as f:
        meta = pd.DataFrame([ast.literal_eval(line) for line in f])
    meta = meta[meta["asin"].isin(item_ids)]
    meta["itemID"] = meta["asin"].map(item_ids)
    meta.sort_values("itemID").to_csv(raw / "meta.csv", index=False)


def _decompress(raw: Path) -> None:
    (raw / "ratings.csv").read_bytes()
    with gzip.open(raw / "meta.json.gz") as f:
        while f.read(1 << 20):
            pass


def peak(work: Callable[[Path], None], raw: Path) -> int:
    """Run `work` and return the peak memory of this process, MiB."""
    work(raw)
    return process.peak_mib()
