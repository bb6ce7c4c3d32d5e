"""The same interactions divided by another seed: filtered and numbered as before."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

import schemas
from pipeline.interactions.build import ORDER, Query, database
from pipeline.interactions.division import MMREC, Division, delete_untrained, divide


def is_drawn(interactions: pa.Table, protocol: str) -> bool:
    return protocol == schemas.COLD_ITEMS or (protocol == MMREC and not schemas.has_own_split(interactions))


def divided(
    interactions: pa.Table, users: pa.Table, items: pa.Table, division: Division, scratch: Path, memory: str
) -> Iterator[pa.Table]:
    """Yield INTERACTIONS of another split by `mmrec` or `cold-items`; DuckDB spills into `scratch` above `memory`."""
    rows = interactions.append_column("pos", pa.array(range(len(interactions)), pa.int64()))
    with database(scratch, memory) as db:
        db.register("rows", rows)
        columns = "pos, user_id AS user, item_id AS item, rating, timestamp"
        db.execute(f"CREATE TABLE core AS SELECT {columns} FROM rows ORDER BY pos")
        for what, table, name in (("user", users, "user"), ("item", items, "asin")):
            db.register("named", table)
            db.execute(
                f"""CREATE TABLE {what}_names AS SELECT {name} AS name, {what}_id AS code,
                md5_number_lower(concat_ws(',', {division.seed}, {name})) AS hash FROM named"""
            )
        divide(db, division)
        delete_untrained(db)
        columns = "user AS user_id, item AS item_id, rating, timestamp, split"
        yield from Query(db, f"SELECT {columns} FROM parted {ORDER}", schemas.INTERACTIONS)
