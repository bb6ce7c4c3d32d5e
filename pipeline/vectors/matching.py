"""Match rows of a feature file with items, by identifier, mapping file or order. I items, N rows, F width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.items import identifiers
from alignrec.pipeline.sources.base import raw_files
from alignrec.pipeline.sources.feature_files import FEATURE, ROWS, format_of
from alignrec.pipeline.vectors.base import Vectors, open_vectors, reraise_faults


@dataclass(frozen=True)
class Matched:
    """An opened feature file, and the row of each item."""

    vectors: Vectors
    place: np.ndarray  # row of each item, int64 [I]; -1 for none
    how: str  # how rows were matched, for messages
    identified: bool  # whether the file contains identifiers
    unknown: int = 0  # rows that match no item
    example: str = ""  # identifier of such a row

    @property
    def missing(self) -> int:
        return int((self.place < 0).sum())

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return vectors of items start .. stop-1, float32 [n, F], zeros without a row; UserError if not finite."""
        place, path = self.place[start:stop], self.vectors.path
        there = np.flatnonzero(place >= 0)
        order = there[np.argsort(place[there], kind="stable")]
        out = np.zeros((len(place), self.vectors.width), np.float32)
        with reraise_faults(path), np.errstate(over="ignore"):  # an overflowing double becomes inf, refused below
            out[order] = self.vectors.take(place[order])
        wrong = np.flatnonzero(~np.isfinite(out).all(axis=1))
        if wrong.size:
            raise UserError(f"{path}, row {place[wrong[0]]}: not finite in single precision; repair the file")
        return out

    def counted(self, asins: Sequence[str], fate: str = "get zeros") -> str:
        """Describe unmatched rows and items in a sentence; empty if all match."""
        parts = [f"{self.unknown:,} rows are of no item here, such as {self.example}"] if self.unknown else []
        if missing := self.missing:
            first = asins[int(np.flatnonzero(self.place < 0)[0])]
            parts.append(f"{missing:,} items have no row, such as {first!r}, and {fate}")
        return "; ".join(parts)


def match_file(
    path: Path, asins: Sequence[str], order: Path | None = None, key: str = "--order", column: str | None = None
) -> Matched:
    """Open a feature file and match its rows by identifiers, else by the mapping file `order`, else by position."""
    vectors = open_vectors(path, column)
    if vectors.ids is not None and (vectors.ids.num_columns or order is None):
        found = identifiers.place_rows(path, vectors.ids, asins)
        how = f"rows matched by {found.column}"
        return Matched(vectors, found.rows, how, True, found.unknown, found.example)
    if order is not None:
        names = identifiers.read_order(order, asins)
        if vectors.count != len(names):
            raise UserError(f"{path}: {vectors.count} rows, {order} names {len(names)}")
        table = pa.table({"asin": pa.array(names, pa.string())})
        found = identifiers.place_rows(order, table, asins)
        return Matched(vectors, found.rows, f"rows in the order of {order.name}", False, found.unknown, found.example)
    if vectors.count != len(asins):
        raise UserError(
            f"{path}: {vectors.count} rows, the dataset has {len(asins)} items, and there are no identifiers; give a "
            f"mapping file as {key}"
        )
    how = f"rows assumed to be in order of item_id: it holds no identifiers; {key} gives another order"
    return Matched(vectors, np.arange(len(asins)), how, False)


class File(NamedTuple):
    """A feature file, and its mapping file."""

    path: Path
    order: Path | None = None  # mapping file, for formats without identifiers; None if row i is item i

    @property
    def format(self) -> str:
        return format_of(self.path.name)

    def matched(self, asins: Sequence[str]) -> Matched:
        return match_file(self.path, asins, self.order, ROWS)


def feature_files(sources: Path) -> dict[str, File]:
    raw = raw_files(sources)
    given = {role: path for role, path in raw.items() if role.startswith(FEATURE)}
    return {role.removeprefix(FEATURE): File(path, raw.get(ROWS)) for role, path in given.items()}


def check_files(found: Mapping[str, File], asins: Sequence[str]) -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    for name, file in found.items():
        matched = file.matched(asins)
        counts = {"rows": matched.vectors.count, "width": matched.vectors.width, "matched": matched.how}
        more = {"rows_of_no_item": matched.unknown, "items_without_a_row": matched.missing, "such_as": matched.example}
        facts[name] = counts | {key: value for key, value in more.items() if value}
    return facts
