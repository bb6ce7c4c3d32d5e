"""Protocols for content: cold items, and users with few train rows."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from ratings import Whole, inter, number, random_ratings, reference, reference_split, table, whole

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import Run, perform
from alignrec.pipeline.interactions import build
from alignrec.pipeline.interactions.division import Division
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.train import inputs
from alignrec.schemas import TEST, TRAIN, VALID
from alignrec.stages.order import STAGES

Do = Callable[..., Whole]


@pytest.fixture
def do(tmp_path: Path) -> Do:
    def run(rows: pd.DataFrame, protocol: str, core: int = 1, **settings: float) -> Whole:
        with build.create_database(tmp_path / "scratch", "1GiB") as db:
            db.execute(f"SET threads = {1 + len(rows) % 4}")
            db.register("rows", rows)
            return whole(build.divide_ratings(db, "SELECT * FROM rows", core, core, Division(protocol, **settings)))  # type: ignore[arg-type]

    return run


def items_of(actual: Whole) -> dict[int, set[str]]:
    """Return split -> identifiers of its items."""
    asins = np.array(actual.item_ids["asin"].to_pylist(), object)
    item, which = (actual.interactions[c].to_numpy() for c in ("item_id", "split"))
    return {part: set(asins[item[which == part]]) for part in (TRAIN, VALID, TEST)}


def rows_of(actual: Whole) -> list[tuple[Any, ...]]:
    """Return all rows with identifiers instead of numbers, sorted."""
    names = actual.users["user"].to_pylist(), actual.item_ids["asin"].to_pylist()
    columns = [actual.interactions[c].to_pylist() for c in ("user_id", "item_id", "timestamp", "split")]
    return in_order((names[0][u], names[1][i], t, s) for u, i, t, s in zip(*columns, strict=True))


def in_order(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=lambda row: tuple((x is not None, x) for x in row))


@pytest.mark.parametrize("seed", range(3))
def test_cold_items_are_equal_to_plain_pandas(do: Do, seed: int) -> None:
    want = reference(random_ratings(seed), 2, 2)
    hashes = {name: (number(f"{seed},{name}"), name) for name in want["item"].unique()}
    ordered = sorted(hashes, key=hashes.__getitem__)
    cold = round(0.3 * len(ordered))
    split = dict.fromkeys(ordered, TRAIN) | dict.fromkeys(ordered[:cold], TEST)
    split |= dict.fromkeys(ordered[: cold // 2], VALID)
    want = want.assign(split=want["item"].map(split))
    trained = set(want.loc[want["split"] == TRAIN, "user"])
    left = want[want["user"].isin(trained)]
    actual = do(random_ratings(seed), "cold-items", core=2, seed=seed, cold_share=0.3)
    assert rows_of(actual) == in_order(zip(left["user"], left["item"], left["timestamp"], left["split"], strict=True))
    assert actual.drops["user_without_train"] == len(want) - len(left)
    assert sum(actual.drops.values()) + len(actual.interactions) == actual.rows
    parts = items_of(actual)
    assert (actual.facts["cold_valid_items"], actual.facts["cold_test_items"]) == (len(parts[VALID]), len(parts[TEST]))
    assert actual.division == "cold-items 0.3"


def test_too_small_a_share_is_refused_with_what_to_do(do: Do) -> None:
    with pytest.raises(UserError, match=r"cold_share: 0\.1 of 12"):
        do(table(", ".join(f"u{i % 3} i{i} {i}" for i in range(12))), "cold-items", cold_share=0.1)


@pytest.mark.parametrize("timed", [True, False])
def test_sparse_is_equal_to_plain_pandas(do: Do, timed: bool) -> None:
    rows = random_ratings(2) if timed else random_ratings(2).dropna().assign(timestamp=0)
    want = reference(rows, 2, 2).reset_index(drop=True)
    want["key"] = [number(f"{number(f'0,{r.user}')},{number(f'0,{r.item}')}") for r in want.itertuples()]
    if timed:
        want["split"] = reference_split(want, "user-time", 0)
        order = want.assign(pos=range(len(want))).sort_values(["timestamp", "pos"], ascending=False)
    else:
        want["split"] = TRAIN
        order = want.sort_values("key")
        for _, own in order.groupby("user"):
            out = 2 if len(own) < 10 else len(own) // 5
            if len(own) >= 3:
                want.loc[own.index[-out:], "split"] = [VALID] * (out // 2) + [TEST] * (out - out // 2)
        order["split"] = want["split"]
    train = order[order["split"] == TRAIN]
    kept = want["split"] != TRAIN
    kept[train.groupby("user").head(3).index] = True
    left = want[kept]
    given = rows if timed else rows.assign(timestamp=None).astype({"timestamp": "Int64"})
    actual = do(given, "sparse", core=2, most_train=3)
    time = left["timestamp"] if timed else [None] * len(left)
    assert rows_of(actual) == in_order(zip(left["user"], left["item"], time, left["split"], strict=True))
    assert actual.drops["over_most_train"] == len(want) - len(left) > 0
    assert sum(actual.drops.values()) + len(actual.interactions) == actual.rows
    assert actual.division == f"sparse 3 of {'user-time' if timed else 'mmrec'}"
    assert set(actual.item_ids["asin"].to_pylist()) == set(want["item"])  # the catalogue is the k-core's


def published(folder: Path, rows: list[tuple[int, int, int, int]], division: Division) -> Whole:
    with build.create_database(folder / "scratch", "1GiB") as db:
        db.register("rows", inter(rows))
        _, n = build.load_published(db, "SELECT * FROM rows")
        return whole(build.import_published(db, [f"A{i}" for i in range(n)], True, division=division))


OWN = [(u, (3 * u + n) % 20, n, (TRAIN, TRAIN, TRAIN, VALID, TEST)[n]) for u in range(12) for n in range(5)]
"""user, item, time, split"""


def test_a_published_split_becomes_cold_and_keeps_its_numbers(tmp_path: Path) -> None:
    actual = published(tmp_path, OWN, Division("cold-items", cold_share=0.4))
    assert actual.item_ids["asin"].to_pylist() == [f"A{i}" for i in range(20)]
    parts = items_of(actual)
    assert (len(parts[VALID]), len(parts[TEST])) == (4, 4)
    assert not parts[TRAIN] & (parts[VALID] | parts[TEST])
    by_row = {(u, i, t) for u, i, t, _ in rows_of(actual)}
    assert by_row <= {(str(u), f"A{i}", t) for u, i, t, _ in OWN}
    names = {f"A{i}": number(f"0,A{i}") for i in range(20)}  # by identifier, as raw ratings of the same items would be
    assert parts[VALID] == set(sorted(names, key=names.__getitem__)[:4])


def test_an_imported_split_becomes_cold_or_sparse(tmp_path: Path) -> None:
    rows = pd.DataFrame(OWN, columns=["user", "item", "timestamp", "split"]).astype({"user": str, "item": str})
    rows = rows.assign(rating=np.float32(5), split=rows["split"].astype(str))

    def imported(division: Division) -> Whole:
        with build.create_database(tmp_path / "scratch", "1GiB") as db:
            db.register("rows", rows)
            return whole(build.import_split(db, "SELECT * FROM rows", division=division))

    plain, sparse, cold = (
        imported(d) for d in (Division(), Division("sparse", most_train=1), Division("cold-items", 3))
    )
    assert imported(Division("user-time")).interactions.equals(plain.interactions)
    which = sparse.interactions["split"].to_numpy()
    assert np.bincount(which).tolist() == [12, 12, 12]
    assert min(sparse.interactions["timestamp"].to_numpy()) == 2  # the latest train row, and what follows it
    assert (sparse.division, cold.division, plain.division) == ("sparse 1 of imported", "cold-items 0.2", "")
    parts = items_of(cold)
    assert not parts[TRAIN] & (parts[VALID] | parts[TEST])
    assert (len(parts[VALID]), len(parts[TEST])) == (2, 2)


def draws(folder: Path, rows: pd.DataFrame, division: Division) -> tuple[Whole, list[pa.Table]]:
    """Return the first draw, and the interactions of every draw."""
    with build.create_database(folder / "scratch", "1GiB") as db:
        db.register("rows", rows)
        split = build.divide_ratings(db, "SELECT * FROM rows", 2, 2, division)
        first, tables = whole(split), []
        for number in range(1, division.draws):
            again = build.draw_again(db, division._replace(draw=number), split)
            tables.append(pa.concat_tables(again))
    return first, [first.interactions, *tables]


def test_each_item_is_cold_once_before_one_is_twice(tmp_path: Path) -> None:
    first, tables = draws(tmp_path, random_ratings(5), Division("cold-items", cold_share=0.3, draws=6))
    cold = [set(t["item_id"].to_numpy()[t["split"].to_numpy() != TRAIN].tolist()) for t in tables]
    items = len(first.item_ids)
    assert {*map(len, cold)} == {round(0.3 * items)}
    for three in (cold[:3], cold[3:]):  # a partition, then another
        assert len(set[int]().union(*three)) == 3 * round(0.3 * items)
    assert cold[3] not in cold[:3]
    for rows in tables:
        users, item, split = (rows[c].to_numpy() for c in ("user_id", "item_id", "split"))
        assert not set(item[split == TRAIN]) & set(item[split != TRAIN])
        assert set(users) == set(users[split == TRAIN])
    pairs = [set(zip(t["user_id"].to_pylist(), t["item_id"].to_pylist(), strict=True)) for t in tables]
    assert len(pairs[1] & pairs[0]) > 0.9 * len(pairs[0])  # users and items keep their numbers


@pytest.mark.parametrize("timed", [True, False])
def test_draws_of_sparse_keep_other_train_interactions_and_the_same_targets(tmp_path: Path, timed: bool) -> None:
    rows = random_ratings(2) if timed else random_ratings(2).assign(timestamp=None).astype({"timestamp": "Int64"})
    _, tables = draws(tmp_path, rows, Division("sparse", most_train=2, draws=3))
    parts = [[t.filter(t["split"].to_numpy() == part).drop("split") for t in tables] for part in (TRAIN, VALID, TEST)]
    for targets in parts[1:]:
        assert all(targets[0].equals(others) for others in targets)
    assert np.bincount(parts[0][1]["user_id"].to_numpy()).max() == 2
    assert len({str(train["item_id"].to_pylist()) for train in parts[0]}) == 3


def test_the_stage_writes_the_draws_and_warns_where_k_is_near_the_candidates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"u{user},i{item}" for user in range(60) for item in rng.permutation(260)[:20]]
    (tmp_path / "bought.csv").write_text("\n".join(["user,item", *rows]))
    source, layout = {"kind": "tabular", "interactions": [str(tmp_path / "bought.csv")]}, Layout(tmp_path, "mine")
    warned = []
    for share, most in ((0.4, 3), (0.9, 2)):
        own = {"protocol": "cold-items", "cold_share": share, "draws": most, "item_core": 1}
        given = Params.model_validate({"datasets": ["mine"], "sources": {"mine": source}, "interactions": own,
                                       "benchmark": {"ks": [10]}})  # fmt: skip
        for name in ("download", "interactions"):
            perform(Run(name, "mine", given, tmp_path), STAGES[name], lambda run: None)
        assert [draw.interactions.is_file() for draw in layout.draws()] == [True] * most
        items = [inputs.read_inputs(draw, None).split.cold_items("test").tolist() for draw in layout.draws()]
        assert len({*map(str, items)}) == most
        warned.append(io.read_json(layout.run_record("interactions"))["notes"].get("warnings"))
    assert warned[0] == ["K is 20 of 51 candidates, so chance is 0.39 and sets lie near to each other. Raise "
                         "interactions.cold_share."]  # fmt: skip
    assert warned[1] is None
