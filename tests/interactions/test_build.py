"""Filtering, numbering and splitting of toy tables, and of random ones against plain pandas."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from ratings import Whole, inter, random_ratings, reference, reference_split, table, whole

from alignrec.pipeline.interactions.build import (
    Query,
    create_database,
    detect_clock,
    divide_ratings,
    import_published,
    import_split,
    load_published,
)
from alignrec.pipeline.interactions.division import BY_USER, Division
from alignrec.pipeline.io.errors import UserError
from alignrec.schemas import TEST, TRAIN, USERS, VALID

Do = Callable[..., Whole]


@pytest.fixture
def do(tmp_path: Path) -> Do:
    def run(
        rows: pd.DataFrame, core: int = 1, item_core: int = 1, protocol: str = "mmrec", seed: int = 0,
        min_rating: float | None = None,
    ) -> Whole:  # fmt: skip
        with create_database(tmp_path / "scratch", "1GiB") as db:
            db.register("rows", rows)
            return whole(
                divide_ratings(db, "SELECT * FROM rows", core, item_core, Division(protocol, seed), min_rating)
            )

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
    with create_database(folder / "scratch", "1GiB") as db:
        db.register("rows", rows)
        return whole(import_split(db, "SELECT * FROM rows", min_rating))


@pytest.mark.parametrize("splits", [["train", "valid", "test", "train", "val"], ["0", "1", "2", "0", "1.0"]])
def test_a_split_of_ones_own_is_kept_row_by_row(tmp_path: Path, splits: list[object]) -> None:
    actual = own_split(tmp_path, splits)
    assert rows_of(actual) == [(0, 0, TRAIN), (0, 0, VALID), (0, 1, TEST), (1, 1, TRAIN), (1, 2, VALID)]
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


def rows_of(actual: Whole) -> list[tuple[int, int, int]]:
    columns = (actual.interactions[name].to_pylist() for name in ("user_id", "item_id", "split"))
    return list(zip(*columns, strict=True))


def imported(folder: Path, rows: pd.DataFrame, min_rating: float | None = None) -> Whole:
    with create_database(folder / "scratch", "1GiB") as db:
        db.register("rows", rows)
        _, count = load_published(db, "SELECT * FROM rows")
        return whole(import_published(db, [f"A{i}" for i in range(count)], True, min_rating))


def test_a_published_split_may_lose_its_low_ratings(tmp_path: Path) -> None:
    rows = inter([(0, 0, 1, 0), (0, 1, 2, 2), (1, 1, 3, 1)]).assign(rating=np.array([5, 1, 5], np.float32))
    actual = imported(tmp_path, rows, min_rating=3)
    assert rows_of(actual) == [(0, 0, TRAIN)]
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
    for ids, number, name, column in (
        (actual.users, "user_id", "user", "user"),
        (actual.item_ids, "item_id", "item", "asin"),
    ):
        assert ids[column].to_pylist() == want.drop_duplicates(number).sort_values(number)[name].tolist()
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
    actual = do(rows, 2, 3, protocol, seed).interactions
    assert [actual[c].to_pylist() for c in columns] == [want[c].tolist() for c in columns]
    assert set(want["split"]) == {TRAIN, VALID, TEST}


def parts(actual: Whole) -> dict[str, list[tuple[int, ...]]]:
    """Return user -> (timestamp, split), sorted by time."""
    users = actual.users["user"].to_pylist()
    rows = actual.interactions.to_pylist()
    return {u: [(r["timestamp"], r["split"]) for r in rows if users[r["user_id"]] == u] for u in users}


def test_sizes_of_the_three_parts(do: Do) -> None:
    for n, sizes in (
        (2, [2, 0, 0]),
        (3, [1, 1, 1]),
        (9, [7, 1, 1]),
        (10, [8, 1, 1]),
        (16, [13, 1, 2]),
        (25, [20, 2, 3]),
    ):
        actual = do(table(", ".join(f"a i{t} {t}" for t in range(n))))
        assert np.bincount(actual.interactions["split"].to_numpy(), minlength=3).tolist() == sizes


def test_mmrec_order_is_random_by_seed_and_not_by_file_order(do: Do) -> None:
    rows = table(", ".join(f"u{u} i{t} {t}" for u in range(30) for t in range(5)))
    first = parts(do(rows))
    assert first == parts(do(rows.sample(frac=1, random_state=1)))
    assert first != parts(do(rows, seed=1))
    places = {{s: t for t, s in first[u]}[TEST] for u in first}
    assert places == set(range(5)), "every place in time is somebody's test"


def test_a_published_split_is_kept_with_its_gaps(tmp_path: Path) -> None:
    actual = imported(tmp_path, inter([(0, 4, 0, 0), (0, 2, 1, 2), (3, 2, 0, 0), (3, 2, 0, 1)]))
    assert actual.item_ids["asin"].to_pylist() == ["A0", "A1", "A2", "A3", "A4"]
    assert actual.users["user"].to_pylist() == ["0", "1", "2", "3"]
    assert rows_of(actual) == [(0, 4, 0), (0, 2, 2), (3, 2, 0), (3, 2, 1)]


@pytest.mark.parametrize("bad", [(-1, 0, 0, 0), (0, 0, 0, 3), (0, 1 << 40, 0, 0), (None, 0, 0, 0)])
def test_a_bad_row_of_a_published_file_names_its_line(tmp_path: Path, bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(UserError, match="line 3"):
        imported(tmp_path, inter([(0, 0, 0, 0), bad]))


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


def test_rows_leave_the_database_in_equal_blocks_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignrec.pipeline.interactions.build.BLOCK", 5000)
    with create_database(tmp_path / "scratch", "1GiB") as db:
        sql = "SELECT (i * 7919 % 17000)::BIGINT AS user_id, i::VARCHAR AS user FROM range(17000) r(i) ORDER BY user_id"
        blocks = list(Query(db, sql, USERS))
    assert [len(block) for block in blocks] == [5000, 5000, 5000, 2000]
    assert pa.concat_tables(blocks)["user_id"].to_pylist() == list(range(17000))
