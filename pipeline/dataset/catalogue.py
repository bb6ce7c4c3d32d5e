"""Size of a catalogue after filtering, for the choice of a k-core."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from alignrec.pipeline.dataset.further import list_further
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
    left_out: int = 0  # items of the item file that it lacks


def measure_catalogue(
    source: Source, raw: Mapping[str, Path], item_file: Path | None = None
) -> CatalogueSize:
    """Return the largest k-core of CORES with MIN_CORE_SIZE users and items, and its counts.

    With an `item_file`, also count the items that the k-core leaves out of it.
    """
    reader = source.reader()
    with tempfile.TemporaryDirectory() as folder:
        if source.has_split:
            return _measure_published(reader, raw, Path(folder))
        for core in CORES:
            size = _measure_core(reader, raw, item_file, Path(folder), core)
            if size is not None:
                return size
    raise AssertionError("the last core returns or raises")


def _measure_core(
    reader: Reader, raw: Mapping[str, Path], item_file: Path | None, folder: Path, core: int
) -> CatalogueSize | None:
    """Return the size of a k-core, or None if it is too small.

    Raises UserError if the last of CORES is empty.
    """
    params = Interactions(user_core=core, item_core=core)
    with create_database(folder / "scratch", params.memory_limit) as db:
        try:
            tables = split_ratings(db, reader, raw, folder, params)
        except UserError:
            if core == CORES[-1]:
                raise
            return None

        facts = tables.facts
        side = min(facts["users"], facts["items"])
        if not (tables.own_split or side >= MIN_CORE_SIZE or core == CORES[-1]):
            return None
        k = 0 if tables.own_split else core
        left_out = _count_left_out(reader, item_file, tables) if item_file else 0
        return CatalogueSize(k, facts["users"], facts["items"], tables.rows_left, left_out)


def _count_left_out(reader: Reader, path: Path, tables: SplitTables) -> int:
    asins = [asin for part in tables.item_ids for asin in part["asin"].to_pylist()]
    return len(list_further(reader, reader.lines(path), asins))


def _measure_published(reader: Reader, raw: Mapping[str, Path], folder: Path) -> CatalogueSize:
    """Return the counts of a published split, as stage `interactions` writes it."""
    with create_database(folder / "scratch", Interactions.memory_limit) as db:
        users, items = load_published(db, reader.ratings(raw))
        tables = import_published(db, list(map(str, range(items))), keep_time=False)
    return CatalogueSize(0, users, items, tables.rows_left)
