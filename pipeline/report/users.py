"""Three users: their history, test items, and each model's recommendations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.benchmark.runs import Entry, keys, rankings
from pipeline.interactions import split
from pipeline.interactions.split import Split
from pipeline.report import words
from pipeline.report.outputs import Outputs
from schemas import TRAIN, clock

USERS, MODELS, TOP = 3, 6, 8  # TOP items of a list; models by Recall@20
SEED = 0  # the run whose rankings are shown


@dataclass(frozen=True)
class User:
    """A test user. Items are item_id."""

    number: int
    history: list[int]  # latest train items first, where times are known
    trained: int  # train items
    wanted: list[int]  # targets of test
    ranked: dict[str, list[int]]  # run -> its best items

    @property
    def shown(self) -> set[int]:
        return {*self.history, *self.wanted, *(item for items in self.ranked.values() for item in items)}


def users(outputs: Outputs, seed: int) -> list[User]:
    """Draw one test user from each third by length of history; none without the benchmark's rankings."""
    table, items = outputs.interactions, outputs.items
    if table is None or items is None or not len(table) or not outputs.compared:
        return []
    parts = split.asked(split.load(table, pc.max(table["user_id"]).as_py() + 1, len(items)))
    chosen = list(drawn(parts, seed))
    rows = outputs.compared[0].rows
    models = [(row.model, row.features) for row in rows if row.features in (outputs.released, "none")][:MODELS]
    made = keys(outputs.layout)
    entries = {words.run(*run): Entry(*run, SEED) for run in models}
    paths = {run: rankings(outputs.layout, entry) for run, entry in entries.items() if entry in made}
    runs = {run: _ranked(path, chosen) for run, path in paths.items() if path.is_file()}
    if not runs:
        return []
    return [
        User(
            user,
            _history(table, user)[:TOP],
            int((parts.train.users == user).sum()),
            parts.test.items[parts.test.users == user].tolist()[:TOP],
            {run: lists.get(user, []) for run, lists in runs.items()},
        )
        for user in chosen
    ]


def drawn(parts: Split, seed: int) -> Iterator[int]:
    candidates = np.unique(parts.test.users)
    length = np.bincount(parts.train.users, minlength=parts.n_users)[candidates]
    rng = np.random.default_rng(seed)
    for third in np.array_split(candidates[np.argsort(length, kind="stable")], USERS):
        if len(third):
            yield int(rng.choice(third))


def _history(table: pa.Table, user: int) -> list[int]:
    own = table.filter((pc.field("user_id") == user) & (pc.field("split") == TRAIN))
    if clock(table) != "none":
        own = own.sort_by([("timestamp", "descending"), ("item_id", "ascending")])
    return list(dict.fromkeys(own["item_id"].to_pylist()))


def _ranked(path: Path, users: Sequence[int]) -> dict[int, list[int]]:
    kind = pq.read_schema(path).field("items").type
    rows = io.read_table(path, schemas.rankings(kind.list_size)).filter(pc.is_in(pc.field("user_id"), pa.array(users)))
    lists = zip(rows["user_id"].to_pylist(), rows["items"].to_pylist(), strict=True)
    return {user: [item for item in items[:TOP] if item >= 0] for user, items in lists}
