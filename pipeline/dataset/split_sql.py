"""k-core filtering and train/valid/test splits as SQL (method.md section 6)."""

from collections.abc import Sequence
from typing import NamedTuple

from duckdb import DuckDBPyConnection as Db

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources.base import EARLIEST_SECONDS, LATEST_SECONDS
from alignrec.schemas import COLD_ITEMS, SPARSE

SPLIT_PARTS = ("train", "valid", "test")  # names of splits 0, 1, 2
MMREC = "mmrec"
USER_TIME = "user-time"
RANDOM = "key, timestamp, pos"  # orders of a user's ratings
TIME = "timestamp, pos"
# SQL over `place` (1 .. n, a rating's rank in the user's order) and `n`. Users with three or more
# ratings hold out the last `out`, the first half of them, rounded down, for valid. `out` is a fifth
# of n, or 2 if n < 10.
_FIFTH = """CASE
    WHEN n < 3 OR place <= n - out THEN 0
    WHEN place <= n - out + out // 2 THEN 1
    ELSE 2 END"""
_LEAVE_ONE_OUT = "CASE WHEN n < 3 OR place < n - 1 THEN 0 WHEN place = n - 1 THEN 1 ELSE 2 END"
# the earliest time by which a share of all ratings has happened; unlike quantile_disc, this can
# spill to disk
_PAST = """(SELECT min(timestamp) FROM (
    SELECT timestamp, sum(count(*)) OVER (ORDER BY timestamp) AS past, sum(count(*)) OVER () AS n
    FROM core GROUP BY timestamp) WHERE 10 * past >= {} * n)"""
# cuts at 80 % and 90 % of all ratings; ratings of the same second stay together
_GLOBAL_TIME = f"""CASE
    WHEN timestamp <= {_PAST.format(8)} THEN 0
    WHEN timestamp <= {_PAST.format(9)} THEN 1
    ELSE 2 END"""
# name -> order of a user's ratings, and the split as SQL
BY_USER = {
    MMREC: (RANDOM, _FIFTH),
    USER_TIME: (TIME, _FIFTH),
    "leave-one-out": (TIME, _LEAVE_ONE_OUT),
    "global-time": (TIME, _GLOBAL_TIME),
}
# most frequent reason for drops -> remedy; the remedy for other reasons is to lower the cores
REMEDIES = {
    "below_min_rating": "lower interactions.min_rating",
    "user_without_train": "give users rows in train, or another interactions.protocol",
}
PROTOCOLS = (*BY_USER, COLD_ITEMS, SPARSE)  # names of all divisions


class Division(NamedTuple):
    """Split protocol and its settings."""

    protocol: str = MMREC  # one of PROTOCOLS
    seed: int = 0  # seed of random orders and cold items
    cold_share: float = 0.2  # `cold-items`: share of items that are cold
    most_train: int = 5  # `sparse`: train ratings kept per user
    draws: int = 1  # number of splits, for protocols that need content
    draw: int = 0  # index of this split

    @property
    def needs_content(self) -> bool:
        return self.protocol in (COLD_ITEMS, SPARSE)


DEFAULT = Division()


def create_names(db: Db, what: str, rows: str, seed: int) -> None:
    # `hash` is a random order, fixed by seed and names
    db.execute(
        f"""CREATE TABLE {what}_names AS
        SELECT name, code, md5_number_lower(concat_ws(',', {seed}, name)) AS hash FROM ({rows})"""
    )


def load_raw(db: Db, ratings: str, max_undated: float | None) -> None:
    """Load ratings into table `raw`, and those whose times are not of the years 1990 to 2100 into
    `undated`, which may have a share of `max_undated`; None takes any time.
    """
    # keeps file order, so rowid is the position, later `pos`
    db.execute(f"CREATE TABLE raw AS {ratings}")
    if max_undated is None:
        return

    outside = f"NOT timestamp BETWEEN {EARLIEST_SECONDS} AND {LATEST_SECONDS - 1}"
    n = query_count(db, f"SELECT count(*) FROM raw WHERE {outside}")
    if n > max_undated * query_count(db, "SELECT count(*) FROM raw"):
        row, time = db.execute(
            f"SELECT rowid + 1, timestamp FROM raw WHERE {outside} ORDER BY rowid LIMIT 1"
        ).fetchall()[0]
        raise UserError(
            f"interactions: {n:,} times are not of the years 1990 to 2100, the first {time} in row "
            f"{row:,}; set `timestamps` of the source: order if they are positions, unix if "
            "seconds of any year, none to ignore them"
        )
    db.execute(
        f"""CREATE TABLE undated AS
        SELECT rowid + 1 AS line, 'a time not of the years 1990 to 2100' AS reason,
            concat_ws(',', user, item, rating, timestamp)::BLOB AS raw
        FROM raw WHERE {outside} ORDER BY line;
        DELETE FROM raw WHERE {outside}"""
    )


def complete_rows(db: Db, min_rating: float | None) -> tuple[str, dict[str, int]]:
    """Return SQL for the complete, sufficiently rated rows of `raw`, and counts of the others."""
    # a column that is null throughout is absent from the source
    optional = ("rating", "timestamp")
    present = [name for name in optional if query_count(db, f"SELECT count({name}) FROM raw")]
    columns = ["user", "item", *present]
    conditions = [f"{column} IS NOT NULL" for column in columns]
    conditions.append("NOT isnan(coalesce(rating, 0))")
    complete = " AND ".join(conditions)

    rows = query_count(db, "SELECT count(*) FROM raw")
    if not rows:
        raise UserError(
            "the interactions have no rows that can be read; "
            "is the file empty, or the metadata in place?"
        )
    left = query_count(db, f"SELECT count(*) FROM raw WHERE {complete}")
    if 2 * left < rows:
        raise _mostly_incomplete(db, columns, rows, rows - left)
    drops = {"missing_value": rows - left}
    if min_rating is None:
        return _rows_sql(complete), drops

    if "rating" not in columns:
        raise UserError(
            "interactions.min_rating needs ratings, and this source has none; leave it out"
        )
    rated = f"{complete} AND rating >= {float(min_rating)}"
    drops["below_min_rating"] = left - query_count(db, f"SELECT count(*) FROM raw WHERE {rated}")
    return _rows_sql(rated), drops


def _rows_sql(condition: str) -> str:
    return f"(SELECT rowid AS pos, * FROM raw WHERE {condition})"


def _mostly_incomplete(db: Db, columns: Sequence[str], rows: int, incomplete: int) -> UserError:
    counts = []
    for column in columns:
        nulls = query_count(db, f"SELECT count(*) - count({column}) FROM raw")
        if nulls:
            counts.append(f"{nulls:,} without {column}")
    return UserError(
        f"interactions: {incomplete:,} of {rows:,} rows lack a value or cannot be read "
        f"({', '.join(counts)}); are reviews and metadata swapped, or is the source of another "
        "`kind` or with other `columns`?"
    )


def load_core(
    db: Db,
    ratings: str,
    cores: dict[str, int],
    seed: int,
    min_rating: float | None,
    max_undated: float | None = None,
) -> tuple[int, dict[str, int]]:
    """Load the k-core into table `core`, with codes for users and items.

    Return rows read and drops.
    """
    load_raw(db, ratings, max_undated)
    db.execute("SET preserve_insertion_order = false")
    complete, drops = complete_rows(db, min_rating)
    rows = query_count(db, "SELECT count(*) FROM raw")

    table = _prefilter_core(db, complete, cores, seed)
    prefiltered = query_count(db, f"SELECT count(*) FROM {table}")
    db.execute(
        f"""CREATE TABLE core AS
        SELECT min(pos) AS pos, user, item, arg_min(rating, pos) AS rating, timestamp
        FROM {table} GROUP BY user, item, timestamp"""
    )
    db.execute(f"DROP TABLE {table}")
    distinct = query_count(db, "SELECT count(*) FROM core")
    _filter_core(db, cores)

    duplicates = prefiltered - distinct
    left = query_count(db, "SELECT count(*) FROM core")
    below = rows - sum(drops.values()) - duplicates - left
    return rows, drops | {"below_k_core": below, "duplicate": duplicates}


def _prefilter_core(db: Db, rows: str, cores: dict[str, int], seed: int) -> str:
    """Filter by counts that include duplicates, to save time; return the table's name."""
    table = "raw"
    for what, least in cores.items():
        frequent = f"SELECT {what} AS name FROM {rows} GROUP BY {what} HAVING count(*) >= {least}"
        names = f"SELECT name, row_number() OVER ()::UINTEGER AS code FROM ({frequent})"
        create_names(db, what, names, seed)
        db.execute(
            f"""CREATE TABLE enough_{what} AS
            SELECT r.* REPLACE (code AS {what})
            FROM {rows} AS r JOIN {what}_names ON name = r.{what}"""
        )
        db.execute(f"DROP TABLE {table}")
        table = rows = f"enough_{what}"
    return table


def _filter_core(db: Db, cores: dict[str, int]) -> None:
    conditions = []
    for what, least in cores.items():
        conditions.append(
            f"{what} IN (SELECT {what} FROM core GROUP BY {what} HAVING count(*) < {least})"
        )
    below = " OR ".join(conditions)
    while query_count(db, f"DELETE FROM core WHERE {below}"):  # each pass may push others below
        pass


def query_count(db: Db, sql: str) -> int:
    return int(db.execute(sql).fetchall()[0][0])


def divide_core(db: Db, division: Division) -> str:
    """Split table `core` into table `parted`.

    Return the division if it needs content, otherwise an empty string.
    """
    has_times = query_count(db, "SELECT count(timestamp) FROM core") > 0
    base = division.protocol
    if base == SPARSE:
        base = USER_TIME if has_times else MMREC
    if base == COLD_ITEMS:
        db.execute("CREATE TABLE parted AS SELECT *, 0::TINYINT AS split FROM core")
    else:
        _divide_by_user(db, base, has_times)
    db.execute("DROP TABLE core")
    return divide_again(db, division, base) if division.needs_content else ""


def _divide_by_user(db: Db, protocol: str, has_times: bool) -> None:
    order, rule = BY_USER[protocol]
    if order == TIME and not has_times:
        raise UserError(
            f"interactions.protocol {protocol} needs times, and this source has none; use mmrec"
        )
    db.execute(
        f"""CREATE TABLE parted AS
        SELECT pos, user, item, rating, timestamp, ({rule})::TINYINT AS split
        FROM (SELECT *, CASE WHEN n < 10 THEN 2 ELSE n // 5 END AS out
              FROM (SELECT core.*, row_number() OVER (PARTITION BY user ORDER BY {order}) AS place,
                           count(*) OVER (PARTITION BY user) AS n
                    FROM {_with_key("core")} AS core))"""
    )


def divide_again(db: Db, division: Division, base: str) -> str:
    """Replace the split of `parted` by one that needs content.

    Return the division with its setting.
    """
    # `undivided` stays for further draws; `split` is null where a rating is left out
    db.execute("ALTER TABLE parted RENAME TO undivided")
    draw_split(db, division)
    if division.protocol == COLD_ITEMS:
        return f"{COLD_ITEMS} {division.cold_share:g}"
    return f"{SPARSE} {division.most_train} of {base}"


def draw_split(db: Db, division: Division) -> None:
    if division.protocol == COLD_ITEMS:
        rule, rows = _cold_items_rule(db, division)
    else:
        rule, rows = _sparse_rule(db, division)
    db.execute(
        f"""CREATE OR REPLACE TABLE parted AS
        SELECT pos, user, item, rating, timestamp, {rule}::TINYINT AS split FROM {rows}"""
    )


def _sparse_rule(db: Db, division: Division) -> tuple[str, str]:
    # a single draw keeps the latest ratings, several keep random ones
    is_single = division.draws == 1
    if is_single and query_count(db, "SELECT count(timestamp) FROM undivided"):
        order = "timestamp DESC, pos DESC"
    elif division.draw:
        order = f"md5_number_lower(concat_ws(',', {division.draw}, key)), pos"
    else:
        order = "key, pos"
    place = f"row_number() OVER (PARTITION BY user, split ORDER BY {order})"
    rule = f"(CASE WHEN split > 0 OR {place} <= {division.most_train} THEN split END)"
    return rule, f"{_with_key('undivided')} AS undivided"


def delete_untrained(db: Db) -> int:
    return query_count(
        db, "DELETE FROM parted WHERE user NOT IN (SELECT user FROM parted WHERE split = 0)"
    )


def _cold_items_rule(db: Db, division: Division) -> tuple[str, str]:
    items = query_count(db, "SELECT count(DISTINCT item) FROM undivided")
    cold = round(division.cold_share * items)
    if cold < 2:
        raise UserError(
            f"interactions.cold_share: {division.cold_share:g} of {items:,} items are {cold}, "
            "too few for valid and test; raise it"
        )

    # draws partition the items; when every item has been cold once, the next partition follows
    partition, part = divmod(division.draw, items // cold)
    order = "hash"
    if partition:
        order = f"md5_number_lower(concat_ws(',', {partition}, hash))"
    db.execute(
        f"""CREATE OR REPLACE TABLE cold AS
        SELECT code AS item,
            row_number() OVER (ORDER BY {order}, name, code) - {part * cold} AS place
        FROM item_names WHERE code IN (SELECT item FROM undivided)"""
    )
    rule = f"""(CASE
        WHEN place BETWEEN 1 AND {cold // 2} THEN 1
        WHEN place BETWEEN 1 AND {cold} THEN 2
        ELSE 0 END)"""
    return rule, "undivided JOIN cold USING (item)"


def _with_key(table: str) -> str:
    return f"""(SELECT {table}.*, md5_number_lower(concat_ws(',', u.hash, i.hash, timestamp)) AS key
        FROM {table}
            JOIN user_names u ON u.code = {table}.user
            JOIN item_names i ON i.code = {table}.item)"""
