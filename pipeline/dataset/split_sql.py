"""k-core filtering and train/valid/test splits as SQL (method.md section 6)."""

from typing import NamedTuple

from duckdb import DuckDBPyConnection as Db

from alignrec.pipeline.io.errors import UserError
from alignrec.schemas import COLD_ITEMS, SPARSE

PARTS = ("train", "valid", "test")  # names of splits 0, 1, 2
MMREC, USER_TIME = "mmrec", "user-time"
RANDOM, TIME = "key, timestamp, pos", "timestamp, pos"
# SQL over `place` (1 .. n, a rating's rank in the user's order) and `n`. Users with three or more ratings hold out the
# last `out`, the first half of them, rounded down, for valid. `out` is a fifth of n, or 2 if n < 10.
_FIFTH = """CASE WHEN n < 3 OR place <= n - out THEN 0 WHEN place <= n - out + out // 2 THEN 1 ELSE 2 END"""
# the earliest time by which a share of all ratings has happened; unlike quantile_disc, this can spill to disk
_PAST = """(SELECT min(timestamp) FROM (
    SELECT timestamp, sum(count(*)) OVER (ORDER BY timestamp) AS past, sum(count(*)) OVER () AS n
    FROM core GROUP BY timestamp) WHERE 10 * past >= {} * n)"""
# name -> order of a user's ratings, and the split as SQL. global-time cuts at 80 % and 90 % of all ratings; ratings of
# the same second stay together.
BY_USER = {
    MMREC: (RANDOM, _FIFTH),
    USER_TIME: (TIME, _FIFTH),
    "leave-one-out": (
        TIME,
        "CASE WHEN n < 3 OR place < n - 1 THEN 0 WHEN place = n - 1 THEN 1 ELSE 2 END",
    ),
    "global-time": (
        TIME,
        f"CASE WHEN timestamp <= {_PAST.format(8)} THEN 0 WHEN timestamp <= {_PAST.format(9)} THEN 1 ELSE 2 END",
    ),
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
    db.execute(
        f"""CREATE TABLE {what}_names AS
        SELECT name, code, md5_number_lower(concat_ws(',', {seed}, name)) AS hash FROM ({rows})"""
    )  # `hash` is a random order, fixed by seed and names


def complete_rows(db: Db, min_rating: float | None) -> tuple[str, dict[str, int]]:
    """Return SQL for the rows of `raw` with all values and a sufficient rating, and counts of the others."""
    # a column that is null throughout is absent from the source
    has = [c for c in ("rating", "timestamp") if query_count(db, f"SELECT count({c}) FROM raw")]
    kept = (
        " AND ".join(f"{c} IS NOT NULL" for c in ("user", "item", *has))
        + " AND NOT isnan(coalesce(rating, 0))"
    )
    rows, left = (
        query_count(db, "SELECT count(*) FROM raw"),
        query_count(db, f"SELECT count(*) FROM raw WHERE {kept}"),
    )
    if not rows:
        raise UserError(
            "the interactions have no rows that can be read; is the file empty, or the metadata in place?"
        )
    drops = {"missing_value": rows - left}
    if 2 * left < rows:
        nulls = {
            c: query_count(db, f"SELECT count(*) - count({c}) FROM raw")
            for c in ("user", "item", *has)
        }
        raise UserError(
            f"interactions: {rows - left:,} of {rows:,} rows lack a value or cannot be read "
            f"({', '.join(f'{n:,} without {c}' for c, n in nulls.items() if n)}); are reviews and metadata swapped, or "
            "is the source of another `kind` or with other `columns`?"
        )
    if min_rating is not None:
        if "rating" not in has:
            raise UserError(
                "interactions.min_rating needs ratings, and this source has none; leave it out"
            )
        kept += f" AND rating >= {float(min_rating)}"
        drops["below_min_rating"] = left - query_count(db, f"SELECT count(*) FROM raw WHERE {kept}")
    return f"(SELECT rowid AS pos, * FROM raw WHERE {kept})", drops


def load_core(
    db: Db, ratings: str, cores: dict[str, int], seed: int, min_rating: float | None
) -> tuple[int, dict[str, int]]:
    """Load the k-core into table `core`, with codes for users and items; return rows read and drops."""
    db.execute(
        f"CREATE TABLE raw AS {ratings}"
    )  # keeps file order, so rowid is the position, later `pos`
    db.execute("SET preserve_insertion_order = false")
    before, drops = complete_rows(db, min_rating)
    rows, table = query_count(db, "SELECT count(*) FROM raw"), "raw"
    counts = [rows - sum(drops.values())]
    for what, least in cores.items():  # prefilter by counts that include duplicates, to save time
        enough = f"SELECT {what} AS name FROM {before} GROUP BY {what} HAVING count(*) >= {least}"
        create_names(
            db, what, f"SELECT name, row_number() OVER ()::UINTEGER AS code FROM ({enough})", seed
        )
        db.execute(
            f"""CREATE TABLE enough_{what} AS
            SELECT r.* REPLACE (code AS {what}) FROM {before} AS r JOIN {what}_names ON name = r.{what}"""
        )
        db.execute(f"DROP TABLE {table}")
        table = before = f"enough_{what}"
    counts.append(query_count(db, f"SELECT count(*) FROM {table}"))
    db.execute(
        f"""CREATE TABLE core AS SELECT min(pos) AS pos, user, item, arg_min(rating, pos) AS rating, timestamp
        FROM {table} GROUP BY user, item, timestamp"""
    )
    db.execute(f"DROP TABLE {table}")
    counts.append(query_count(db, "SELECT count(*) FROM core"))
    few = " OR ".join(
        f"{what} IN (SELECT {what} FROM core GROUP BY {what} HAVING count(*) < {least})"
        for what, least in cores.items()
    )
    while query_count(
        db, f"DELETE FROM core WHERE {few}"
    ):  # each pass may push others below the core
        pass
    below = counts[0] - counts[1] + counts[2] - query_count(db, "SELECT count(*) FROM core")
    return rows, drops | {"below_k_core": below, "duplicate": counts[1] - counts[2]}


def query_count(db: Db, sql: str) -> int:
    return int(db.execute(sql).fetchall()[0][0])


def divide_core(db: Db, division: Division) -> str:
    """Split table `core` into table `parted`; return the division if it needs content, otherwise an empty string."""
    timed = query_count(db, "SELECT count(timestamp) FROM core") > 0
    base = division.protocol
    if base == SPARSE:
        base = USER_TIME if timed else MMREC
    if base == COLD_ITEMS:
        db.execute("CREATE TABLE parted AS SELECT *, 0::TINYINT AS split FROM core")
    else:
        order, rule = BY_USER[base]
        if order == TIME and not timed:
            raise UserError(
                f"interactions.protocol {base} needs times, and this source has none; use mmrec"
            )
        db.execute(
            f"""CREATE TABLE parted AS SELECT pos, user, item, rating, timestamp, ({rule})::TINYINT AS split
            FROM (SELECT *, CASE WHEN n < 10 THEN 2 ELSE n // 5 END AS out
                  FROM (SELECT core.*, row_number() OVER (PARTITION BY user ORDER BY {order}) AS place,
                               count(*) OVER (PARTITION BY user) AS n
                        FROM {_with_key("core")} AS core))"""
        )
    db.execute("DROP TABLE core")
    return divide_again(db, division, base) if division.needs_content else ""


def divide_again(db: Db, division: Division, base: str) -> str:
    """Replace the split of `parted` by one that needs content; return the division with its setting."""
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
        # a single draw keeps the latest ratings, several keep random ones
        timed = division.draws == 1 and query_count(db, "SELECT count(timestamp) FROM undivided")
        drawn = (
            f"md5_number_lower(concat_ws(',', {division.draw}, key))" if division.draw else "key"
        )
        latest = "timestamp DESC, pos DESC" if timed else f"{drawn}, pos"
        place = f"row_number() OVER (PARTITION BY user, split ORDER BY {latest})"
        rule = f"(CASE WHEN split > 0 OR {place} <= {division.most_train} THEN split END)"
        rows = f"{_with_key('undivided')} AS undivided"
    db.execute(
        f"""CREATE OR REPLACE TABLE parted AS
        SELECT pos, user, item, rating, timestamp, {rule}::TINYINT AS split FROM {rows}"""
    )


def delete_untrained(db: Db) -> int:
    return query_count(
        db, "DELETE FROM parted WHERE user NOT IN (SELECT user FROM parted WHERE split = 0)"
    )


def _cold_items_rule(db: Db, division: Division) -> tuple[str, str]:
    items = query_count(db, "SELECT count(DISTINCT item) FROM undivided")
    cold = round(division.cold_share * items)
    if cold < 2:
        raise UserError(
            f"interactions.cold_share: {division.cold_share:g} of {items:,} items are {cold}, too few for valid and "
            "test; raise it"
        )
    # draws partition the items; when every item has been cold once, the next partition follows
    partition, part = divmod(division.draw, items // cold)
    order = f"md5_number_lower(concat_ws(',', {partition}, hash))" if partition else "hash"
    db.execute(
        f"""CREATE OR REPLACE TABLE cold AS
        SELECT code AS item, row_number() OVER (ORDER BY {order}, name, code) - {part * cold} AS place
        FROM item_names WHERE code IN (SELECT item FROM undivided)"""
    )
    rule = f"CASE WHEN place BETWEEN 1 AND {cold // 2} THEN 1 WHEN place BETWEEN 1 AND {cold} THEN 2 ELSE 0 END"
    return f"({rule})", "undivided JOIN cold USING (item)"


def _with_key(table: str) -> str:
    return f"""(SELECT {table}.*, md5_number_lower(concat_ws(',', u.hash, i.hash, timestamp)) AS key FROM {table}
        JOIN user_names u ON u.code = {table}.user JOIN item_names i ON i.code = {table}.item)"""
