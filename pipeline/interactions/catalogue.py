"""Size of the catalogue that interactions leave, before the pipeline runs."""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import UserError
from pipeline.interactions import build, repairs
from pipeline.interactions.division import Division
from pipeline.sources.base import Reader

# least interactions of a user and of an item, tried in this order; 5 is what published tables have
CORES = (5, 3, 2, 1)
ENOUGH = 10  # users, and items, that a core must leave


class Catalogue(NamedTuple):
    """Counts after filtering."""

    core: int  # least interactions of a user and of an item; 0 where the split is the source's own
    users: int
    items: int
    interactions: int


def measure(reader: Reader, raw: Mapping[str, Path], memory_limit: str = "1GiB") -> Catalogue:
    """Return the largest core of CORES that leaves enough, and what it leaves; UserError if nothing is left."""
    with tempfile.TemporaryDirectory() as folder:
        for core in CORES:
            with build.database(Path(folder) / "scratch", memory_limit) as db:
                try:
                    tables, own, _ = repairs.split(db, reader, raw, Path(folder), partial(_divide, db, core))
                except UserError:
                    if core == CORES[-1]:
                        raise
                    continue
            facts, left = tables.facts, tables.rows - sum(tables.drops.values())
            if own or core == CORES[-1] or min(facts["users"], facts["items"]) >= ENOUGH:
                break
        return Catalogue(0 if own else core, facts["users"], facts["items"], left)


def _divide(db: build.Db, core: int, ratings: str, own: bool) -> build.SplitTables:
    return build.import_split(db, ratings) if own else build.split(db, ratings, core, core, Division())
