"""Filtering, numbering and splitting of toy tables, and of random ones against plain pandas."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection
from ratings import Whole, inter, number, random_ratings, reference, reference_split, table, whole

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.dataset.published import detect_clock, import_published, load_published
from alignrec.pipeline.dataset.split_sql import BY_USER, Division
from alignrec.pipeline.dataset.split_tables import Query, create_database, divide_ratings, draw_again, import_split
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run
from alignrec.pipeline.runtime.stage import perform
from alignrec.schemas import TEST, TRAIN, USERS, VALID
from alignrec.stages.order import STAGES

Do = Callable[..., Whole]
SQL = "SELECT * FROM rows"


@contextmanager
def database(folder: Path, rows: pd.DataFrame) -> Iterator[DuckDBPyConnection]:
    with create_database(folder / "scratch", "1GiB") as db:
        db.execute(f"SET threads = {1 + len(rows) % 4}")
        db.register("rows", rows)
        yield db


@pytest.fixture
def do(tmp_path: Path) -> Do:
    def run(
        rows: pd.DataFrame, core: int = 1, item_core: int = 1, min_rating: float | None = None, **division: Any
    ) -> Whole:
        with database(tmp_path, rows) as db:
            return whole(divide_ratings(db, SQL, core, item_core, Division(**division), min_rating))

    return run


def test_a_row_that_lacks_something_is_dropped_and_counted(do: Do) -> None:
    rows = table("a x 1, b y 2, c z 3, d x 4")
    rows["rating"] = np.array([5, np.nan, 5, 5], np.float32)
    rows.loc[2, "user"] = None
    actual = do(rows)
    assert (actual.rows, len(actual.interactions), actual.drops["missing_value"]) == (4, 2, 2)


def test_what_leaves_too_little_is_refused_with_the_counts(do: Do) -> None:
    rows = table("a x 1, a y 2, b x 3, b y 4").assign(rating=np.array([5, 4, 3, 4.5], np.float32))
    actual = do(rows, min_rating=4)
    assert actual.interactions["rating"].to_pylist() == [5, 4, 4.5]
    assert (actual.drops["below_min_rating"], sum(actual.drops.values()), actual.rows) == (1, 1, 4)
    unnamed = rows.assign(user=[None, None, None, "b"])
    unrated = rows.assign(rating=None).astype({"rating": "Float32"})
    for given, settings, fact in (
        (rows, {"min_rating": 6}, r"4 below.*interactions\.min_rating"),
        (unrated, {"min_rating": 4}, "min_rating"),
        (rows, {"core": 3}, "4: 4 below_k_core"),
        (unnamed, {}, r"3 of 4 rows .*\(3 without user\)"),
        (rows[:0], {}, "no rows"),
    ):
        with pytest.raises(UserError, match=fact):
            do(given, **settings)


def own_split(folder: Path, splits: list[object], min_rating: float | None = None) -> Whole:
    rows = table("a x 1, a x 1, a y 2, b y 1, b z 3")
    rows = rows.assign(rating=np.array([1, 2, 3, 4, 5], np.float32), split=pd.Series(splits, dtype=object))
    with database(folder, rows) as db:
        return whole(import_split(db, SQL, min_rating))


@pytest.mark.parametrize("splits", [["train", "valid", "test", "train", "val"], ["0", "1", "2", "0", "1.0"]])
def test_a_split_of_ones_own_is_kept_row_by_row(tmp_path: Path, splits: list[object]) -> None:
    actual = own_split(tmp_path, splits)
    assert numbers_of(actual) == [(0, 0, TRAIN), (0, 0, VALID), (0, 1, TEST), (1, 1, TRAIN), (1, 2, VALID)]
    assert actual.item_ids["asin"].to_pylist() == ["x", "y", "z"]


def test_a_split_of_ones_own_drops_users_without_train_and_low_ratings(tmp_path: Path) -> None:
    actual = own_split(tmp_path, ["train", "valid", "test", "test", "valid"])
    assert (len(actual.interactions), actual.drops["user_without_train"], actual.rows) == (3, 2, 5)
    actual = own_split(tmp_path, ["train", "train", "test", "train", "valid"], min_rating=2)
    assert actual.interactions["rating"].to_pylist() == [2, 3, 4, 5]
    assert actual.drops["below_min_rating"] == 1


def test_an_unknown_split_names_its_row(tmp_path: Path) -> None:
    for odd, fact in (("tset", r"row 3: .*'tset'"), (None, "row 3: .*None")):
        with pytest.raises(UserError, match=fact):
            own_split(tmp_path, ["train", "valid", odd, "test", "valid"])


def numbers_of(actual: Whole) -> list[tuple[int, int, int]]:
    columns = (actual.interactions[name].to_pylist() for name in ("user_id", "item_id", "split"))
    return list(zip(*columns, strict=True))


def published(folder: Path, rows: pd.DataFrame, **settings: Any) -> Whole:
    with database(folder, rows) as db:
        _, count = load_published(db, SQL)
        return whole(import_published(db, [f"A{i}" for i in range(count)], True, **settings))


def test_a_published_split_may_lose_its_low_ratings(tmp_path: Path) -> None:
    rows = inter([(0, 0, 1, 0), (0, 1, 2, 2), (1, 1, 3, 1)]).assign(rating=np.array([5, 1, 5], np.float32))
    actual = published(tmp_path, rows, min_rating=3)
    assert numbers_of(actual) == [(0, 0, TRAIN)]
    assert (actual.drops, actual.rows) == ({"below_min_rating": 1, "user_without_train": 1}, 3)


@pytest.mark.parametrize(
    ("times", "clock"),
    [
        ((1388540434, 1400000000), "unix"),
        *(((a, b), "none") for a, b in [(0, 0), (1, 2), (1388540434, 7), (1388540434, 1388540434), (1400000000, None)]),
    ],
)
def test_unix_seconds_of_a_split_are_detected(times: tuple[int, int | None], clock: str, tmp_path: Path) -> None:
    with create_database(tmp_path / "scratch", "1GiB") as db:
        db.register("raw", pd.DataFrame({"timestamp": pd.array(times, "Int64")}))
        assert detect_clock(db) == clock


def test_a_source_without_ratings_or_times_keeps_its_rows(do: Do) -> None:
    rows = table("a x 0, a y 0, a x 0").assign(rating=np.float32("nan"), timestamp=None)
    rows["rating"] = None
    actual = do(rows.astype({"rating": "Float32", "timestamp": "Int64"}))
    assert actual.drops == {"missing_value": 0, "duplicate": 1, "below_k_core": 0, "user_without_train": 0}
    assert (actual.interactions["rating"].null_count, actual.interactions["timestamp"].null_count) == (2, 2)
    assert actual.facts["repeated_pairs"] == 0
    with pytest.raises(UserError, match="leave-one-out"):
        do(rows.astype({"rating": "Float32", "timestamp": "Int64"}), protocol="leave-one-out")


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_plain_pandas(do: Do, seed: int) -> None:
    rows = random_ratings(seed)
    user_core, item_core = 2 + seed % 3, 1 + seed % 4
    want = reference(rows, user_core, item_core).sort_values(["user_id", "timestamp", "item_id"])
    actual = do(rows, user_core, item_core)
    for column in ("user_id", "item_id", "rating", "timestamp"):
        assert actual.interactions[column].to_pylist() == want[column].tolist(), column
    for ids, numbered, name, column in (
        (actual.users, "user_id", "user", "user"),
        (actual.item_ids, "item_id", "item", "asin"),
    ):
        assert ids[column].to_pylist() == want.drop_duplicates(numbered).sort_values(numbered)[name].tolist()
    assert sum(actual.drops.values()) + len(actual.interactions) == actual.rows == len(rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("protocol", BY_USER)
def test_every_protocol_is_equal_to_plain_pandas(do: Do, protocol: str, seed: int) -> None:
    rows = random_ratings(seed)
    want = reference(rows, 2, 3).reset_index(drop=True)
    want["split"] = reference_split(want, protocol, seed)
    want = want[want["split"] >= 0]
    want = want.assign(user_id=pd.factorize(want["user"])[0], item_id=pd.factorize(want["item"])[0])
    columns = ["user_id", "timestamp", "item_id", "split", "rating"]
    want = want.sort_values(columns)
    actual = do(rows, 2, 3, protocol=protocol, seed=seed).interactions
    assert [actual[c].to_pylist() for c in columns] == [want[c].tolist() for c in columns]
    assert set(want["split"]) == {TRAIN, VALID, TEST}


def test_a_published_split_is_kept_with_its_gaps(tmp_path: Path) -> None:
    actual = published(tmp_path, inter([(0, 4, 0, 0), (0, 2, 1, 2), (3, 2, 0, 0), (3, 2, 0, 1)]))
    assert actual.item_ids["asin"].to_pylist() == ["A0", "A1", "A2", "A3", "A4"]
    assert actual.users["user"].to_pylist() == ["0", "1", "2", "3"]
    assert numbers_of(actual) == [(0, 4, 0), (0, 2, 2), (3, 2, 0), (3, 2, 1)]


@pytest.mark.parametrize("bad", [(-1, 0, 0, 0), (0, 0, 0, 3), (0, 1 << 40, 0, 0), (None, 0, 0, 0)])
def test_a_bad_row_of_a_published_file_names_its_line(tmp_path: Path, bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(UserError, match="line 3"):
        published(tmp_path, inter([(0, 0, 0, 0), bad]))


MANY = """SELECT 'a longer name of a user ' || (hash(i, 1) % 30000) AS user, 'an item ' || (hash(i, 2) % 5000) AS item,
    5::FLOAT AS rating, (hash(i, 3) % 1000000)::BIGINT AS timestamp FROM range(200000) r(i)"""


def test_what_does_not_fit_into_memory_is_spilled_and_ends_alike(tmp_path: Path) -> None:
    def run(limit: str, disk: str) -> Whole:
        with create_database(tmp_path / "scratch", limit) as db:
            db.execute(f"SET threads = 2; SET max_temp_directory_size = '{disk}'")
            return whole(divide_ratings(db, MANY, 5, 5, Division()))

    with pytest.raises(UserError, match="offload"):
        run("28MiB", "0KB")
    assert list(tmp_path.iterdir()) == []
    assert run("28MiB", "1GiB") == run("1GiB", "0KB")


def test_rows_leave_the_database_in_equal_blocks_in_order(tmp_path: Path) -> None:
    with create_database(tmp_path / "scratch", "1GiB") as db:
        sql = "SELECT (i * 7919 % 17000)::BIGINT AS user_id, i::VARCHAR AS user FROM range(17000) r(i) ORDER BY user_id"
        blocks = list(Query(db, sql, USERS, rows_per_block=5000))
    assert [len(block) for block in blocks] == [5000, 5000, 5000, 2000]
    assert pa.concat_tables(blocks)["user_id"].to_pylist() == list(range(17000))


# --- protocols for content: cold items, and users with few train rows


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
    actual = do(random_ratings(seed), 2, 2, protocol="cold-items", seed=seed, cold_share=0.3)
    assert rows_of(actual) == in_order(zip(left["user"], left["item"], left["timestamp"], left["split"], strict=True))
    assert actual.drops["user_without_train"] == len(want) - len(left)
    assert sum(actual.drops.values()) + len(actual.interactions) == actual.rows
    parts = items_of(actual)
    assert (actual.facts["cold_valid_items"], actual.facts["cold_test_items"]) == (len(parts[VALID]), len(parts[TEST]))
    assert actual.division == "cold-items 0.3"


def test_too_small_a_share_is_refused_with_what_to_do(do: Do) -> None:
    with pytest.raises(UserError, match=r"cold_share: 0\.1 of 12"):
        do(table(", ".join(f"u{i % 3} i{i} {i}" for i in range(12))), protocol="cold-items", cold_share=0.1)


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
    actual = do(given, 2, 2, protocol="sparse", most_train=3)
    time = left["timestamp"] if timed else [None] * len(left)
    assert rows_of(actual) == in_order(zip(left["user"], left["item"], time, left["split"], strict=True))
    assert actual.drops["over_most_train"] == len(want) - len(left) > 0
    assert sum(actual.drops.values()) + len(actual.interactions) == actual.rows
    assert actual.division == f"sparse 3 of {'user-time' if timed else 'mmrec'}"
    assert set(actual.item_ids["asin"].to_pylist()) == set(want["item"])  # the catalogue is the k-core's


OWN = [(u, (3 * u + n) % 20, n, (TRAIN, TRAIN, TRAIN, VALID, TEST)[n]) for u in range(12) for n in range(5)]
"""user, item, time, split"""


def test_a_published_split_becomes_cold_and_keeps_its_numbers(tmp_path: Path) -> None:
    actual = published(tmp_path, inter(OWN), division=Division("cold-items", cold_share=0.4))
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
        with database(tmp_path, rows) as db:
            return whole(import_split(db, SQL, division=division))

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
    with database(folder, rows) as db:
        split = divide_ratings(db, SQL, 2, 2, division)
        first, tables = whole(split), []
        for number in range(1, division.draws):
            again = draw_again(db, division._replace(draw=number), split)
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
    source, layout = {"kind": "tabular", "interactions": str(tmp_path / "bought.csv")}, Layout(tmp_path, "mine")
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
