"""Size of a catalogue after filtering, for the choice of a k-core."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from alignrec.pipeline.dataset.interactions import split_ratings
from alignrec.pipeline.dataset.params import Interactions
from alignrec.pipeline.dataset.published import import_published, load_published
from alignrec.pipeline.dataset.split_tables import SplitTables, create_database
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.source import Source
from alignrec.pipeline.sources.base import Reader

CORES = (5, 3, 2, 1)  # k-cores to try, in this order; published tables use 5
MIN_CORE_SIZE = 10  # users and items that a k-core must have


class CatalogueSize(NamedTuple):
    """Size of a catalogue after filtering."""

    core: int  # k of the k-core; 0 if the source has its own split
    users: int
    items: int
    interactions: int


def measure_catalogue(source: Source, raw: Mapping[str, Path]) -> CatalogueSize:
    """Return the largest k-core of CORES with MIN_CORE_SIZE users and items, and its counts."""
    reader = source.reader()
    with tempfile.TemporaryDirectory() as folder:
        if source.has_split:
            return _measure_published(reader, raw, Path(folder))
        for core in CORES:
            tables = _split_core(reader, raw, Path(folder), core)
            if tables is None:
                continue
            side = min(tables.facts["users"], tables.facts["items"])
            if tables.own_split or side >= MIN_CORE_SIZE or core == CORES[-1]:
                k = 0 if tables.own_split else core
                return _count_tables(k, tables)
    raise AssertionError("the last core returns or raises")


def _count_tables(core: int, tables: SplitTables) -> CatalogueSize:
    return CatalogueSize(core, tables.facts["users"], tables.facts["items"], tables.rows_left)


def _split_core(
    reader: Reader, raw: Mapping[str, Path], folder: Path, core: int
) -> SplitTables | None:
    """Return the tables of a k-core, or None if it is empty.

    Raises UserError if the last of CORES is.
    """
    params = Interactions(user_core=core, item_core=core)
    with create_database(folder / "scratch", params.memory_limit) as db:
        try:
            return split_ratings(db, reader, raw, folder, params)
        except UserError:
            if core == CORES[-1]:
                raise
            return None


def _measure_published(reader: Reader, raw: Mapping[str, Path], folder: Path) -> CatalogueSize:
    """Return the counts of a published split, as stage `interactions` writes it."""
    with create_database(folder / "scratch", Interactions.memory_limit) as db:
        users, items = load_published(db, reader.ratings(raw))
        tables = import_published(db, list(map(str, range(items))), keep_time=False)
    return CatalogueSize(0, users, items, tables.rows_left)
