"""Import splits that were published in MMRec's format, with their ids."""

from collections.abc import Sequence

import pyarrow as pa

from alignrec.pipeline.dataset import split_sql
from alignrec.pipeline.dataset.split_sql import DEFAULT, MMREC, Db, Division, query_count
from alignrec.pipeline.dataset.split_tables import (
    ORDER,
    SplitTables,
    collect_tables,
    drop_left_out,
)
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources.base import EARLIEST_SECONDS, LATEST_SECONDS

MAX_ID = 2_147_483_646
# a published id must be below MAX_IDS_PER_ROW times the number of distinct ids, or below SPARE_IDS
MAX_IDS_PER_ROW = 100
SPARE_IDS = 1_000_000


def load_published(db: Db, ratings: str) -> tuple[int, int]:
    """Load ratings with published ids and split; return how many users and items the ids count."""
    db.execute(f"CREATE TABLE raw AS {ratings}")  # keeps file order, so rowid gives the line
    _refuse_bad_ids(db)
    if not query_count(db, "SELECT count(*) FROM raw"):
        raise UserError("the .inter file has no rows")

    for what in ("user", "item"):
        _refuse_sparse_ids(db, what)
    users = query_count(db, "SELECT max(user) + 1 FROM raw")
    items = query_count(db, "SELECT max(item) + 1 FROM raw")
    return users, items


def _refuse_bad_ids(db: Db) -> None:
    bad = db.execute(
        f"""SELECT rowid + 2, user, item, split FROM raw
        WHERE NOT (user BETWEEN 0 AND {MAX_ID} AND item BETWEEN 0 AND {MAX_ID}
            AND split BETWEEN 0 AND 2) IS TRUE
        ORDER BY rowid LIMIT 1"""
    ).fetchone()
    if bad:
        line, user, item, split = bad
        raise UserError(
            f"the .inter file, line {line}: userID {user}, itemID {item}, x_label {split}; "
            "expected whole numbers from 0 and x_label 0, 1 or 2"
        )


def _refuse_sparse_ids(db: Db, what: str) -> None:
    # every id below the largest takes memory
    sizes = db.execute(f"SELECT max({what}), count(DISTINCT {what}) FROM raw")
    largest, distinct = sizes.fetchall()[0]
    if largest >= max(MAX_IDS_PER_ROW * distinct, SPARE_IDS):
        line = query_count(db, f"SELECT min(rowid) + 2 FROM raw WHERE {what} = {largest}")
        raise UserError(
            f"the .inter file, line {line}: {what}ID {largest:,}, "
            f"and only {distinct:,} {what}s have rows; MMRec numbers {what}s from 0 on without gaps"
        )


def import_published(
    db: Db,
    asins: Sequence[str],
    keep_time: bool,
    min_rating: float | None = None,
    division: Division = DEFAULT,
    names: Sequence[str] | None = None,
) -> SplitTables:
    """Import ratings with their published ids, even ids without rows, and split, unless the
    division replaces it.
    """
    rows = query_count(db, "SELECT count(*) FROM raw")
    users = query_count(db, "SELECT max(user) + 1 FROM raw")
    user_ids = pa.array(range(users), pa.int32())
    item_ids = pa.array(range(len(asins)), pa.int32())
    db.register(
        "users", pa.table({"user_id": user_ids, "user": names or user_ids.cast(pa.string())})
    )
    db.register("asins", pa.table({"item_id": item_ids, "asin": asins}))

    time = "timestamp" if keep_time else "NULL::BIGINT"
    rated = "true"
    if min_rating is not None:
        rated = f"coalesce(rating >= {float(min_rating)}, false)"
    db.execute(
        f"""CREATE TABLE parted AS
        SELECT rowid AS pos, user::INTEGER AS user, item::INTEGER AS item, rating,
            {time} AS timestamp, split::TINYINT AS split
        FROM raw WHERE {rated};
        DROP TABLE raw"""
    )
    below = rows - query_count(db, "SELECT count(*) FROM parted")

    division_name = ""
    if (
        division.needs_content
    ):  # it draws by hashes of names; published files name users only by number
        user_names = "SELECT user_id::VARCHAR AS name, user_id AS code FROM users"
        item_names = "SELECT asin AS name, item_id AS code FROM asins"
        split_sql.create_names(db, "user", user_names, division.seed)
        split_sql.create_names(db, "item", item_names, division.seed)
        division_name = split_sql.divide_again(db, division, MMREC)

    drops = {"user_without_train": split_sql.delete_untrained(db)}
    if below:
        drops["below_min_rating"] = below
    drops |= drop_left_out(db)
    return collect_tables(
        db,
        f"SELECT user AS user_id, item AS item_id, rating, timestamp, split FROM parted {ORDER}",
        "SELECT * FROM users ORDER BY user_id",
        "SELECT * FROM asins ORDER BY item_id",
        rows,
        drops,
        division_name,
    )


def detect_clock(db: Db) -> str:
    """Return `unix` if all published timestamps are Unix seconds that differ, otherwise `none`."""
    are_seconds = f"timestamp >= {EARLIEST_SECONDS} AND timestamp < {LATEST_SECONDS}"
    sql = f"""SELECT bool_and(coalesce({are_seconds}, false)) AND min(timestamp) < max(timestamp)
        FROM raw"""
    is_clock = db.execute(sql).fetchall()[0][0]
    return "unix" if is_clock else "none"
