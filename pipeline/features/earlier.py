"""Rows that a feature set had of the same text and image before its items changed, by a hash of both.

Files that no longer fit the items are laid aside in a folder of the set, each called by its sha256, until the set is
whole. A mark beside each file says of what it was made. Letters: n rows of a file.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import io
from pipeline.features.node import changed, shard

FOLDER = ".earlier"
"""of the files that are laid aside"""
SIZE = 16
"""bytes of a sha256 that are kept; two of n contents share them with a chance of n^2 / 2^129"""
ROW = np.dtype([("key", f"S{SIZE}"), ("read", "<i4"), ("there", "<i4")])
"""hash of text and image, and tokens of the text, see `Reading`; -1 where they are not known"""
Encoding = Callable[[pa.Table, list[str], list[bytes | None]], pa.Table]
"""item_id and asin, texts and JPEGs of some items -> their rows"""


class Mark(NamedTuple):
    """What a file of a feature set was made of."""

    inputs: str
    """JSON, see `Node.own_inputs`"""
    sha256: str
    """of the file"""
    taken_over: int
    """rows that an earlier file had"""
    rows: str
    """ROW [n] in base 64; empty where rows are not known by text and image"""


def mark_of(file: Path) -> Path:
    """Return where the mark of a file is; none is there while the file is made."""
    return file.parent / ".shards" / file.stem / io.KEY


def read_mark(file: Path) -> Mark | None:
    """Return the mark of a file; None where there is none, or no whole one."""
    return _read(mark_of(file))


def _read(path: Path) -> Mark | None:
    try:
        return Mark(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_mark(file: Path, inputs: str, rows: pa.Table) -> None:
    """Write the mark of a file, given its rows with the columns that `Earlier.rows` adds."""
    known = np.zeros(len(rows) if "key" in rows.column_names else 0, ROW)
    if len(known):
        known["key"] = rows["key"].to_pylist()
        for name in ("read", "there"):
            known[name] = rows[name].fill_null(-1).to_numpy() if name in rows.column_names else -1
    rows_said = base64.b64encode(known.tobytes()).decode()
    mark = Mark(inputs, io.sha256(file), count(rows, "taken_over"), rows_said)
    io.write_bytes(mark_of(file), json.dumps(mark._asdict()).encode())


def count(rows: pa.Table, column: str) -> int:
    """Return in how many rows a column of truth values is true; 0 where there is no such column."""
    return int(pc.sum(rows[column]).as_py() or 0) if column in rows.column_names else 0


def lay_aside(file: Path, mark: Mark) -> None:
    """Move a file to the earlier ones, its mark first, so that a kill anywhere loses neither."""
    folder = file.parent / FOLDER
    if not io.begun(folder, ""):
        io.begin(folder, "")
    io.write_bytes(folder / f"{mark.sha256}.json", json.dumps(mark._asdict()).encode())
    file.replace(folder / f"{mark.sha256}.parquet")
    mark_of(file).unlink(missing_ok=True)


class Earlier:
    """The rows of the files that are laid aside; of each a hash and a place are held, and no more."""

    def __init__(self, folder: Path | None) -> None:
        """Read the marks of what is laid aside in a set's folder; None: nothing is."""
        aside = folder and folder / FOLDER
        marks = io.journal(aside) if aside and io.begun(aside, "") else {}
        self.files, rows, first = list[Path](), [np.zeros(0, ROW)["key"]], [0]
        for path in sorted(path for path in marks if path.is_file() and io.sha256(path) in marks[path]):
            self.files.append(path)
            rows.append(_known(path)["key"].copy())  # the rest of each row is not held
            first.append(first[-1] + len(rows[-1]))
        self.first, keys = np.array(first), np.concatenate(rows)
        self.places = np.argsort(keys, kind="stable")
        self.keys = keys[self.places]

    def rows(self, ids: pa.Table, texts: list[str], images: list[bytes | None], encode: Encoding) -> pa.Table:
        """Return the rows of items: those that are there, and of the others what `encode` makes of them.

        Returns:
            what `encode` returns, with columns `key`, the hash, and `taken_over`.
        """
        keys = hashes(texts, images)
        taken, tables = self._found(keys)
        new = np.setdiff1d(np.arange(len(keys)), taken)
        if not len(taken):
            rows = encode(ids, texts, images)
        else:
            if len(new):
                tables.append(encode(ids.take(new), [texts[i] for i in new], [images[i] for i in new]))
            order = np.argsort(np.concatenate([taken, new]))
            rows = pa.concat_tables(tables, promote_options="default").take(order)
            rows = changed(changed(rows, "item_id", ids["item_id"]), "asin", ids["asin"])
        rows = rows.append_column("key", pa.array(keys, pa.binary(SIZE)))
        return rows.append_column("taken_over", pa.array(np.isin(np.arange(len(keys)), taken)))

    def _found(self, keys: Sequence[bytes]) -> tuple[np.ndarray, list[pa.Table]]:
        """Return which of n rows are there, int64 [m], and tables of these m in this order, but for their ids."""
        wanted = np.array(keys, self.keys.dtype)
        at = np.searchsorted(self.keys, wanted)
        there = np.flatnonzero(at < len(self.keys))
        there = there[self.keys[at[there]] == wanted[there]]
        places = self.places[at[there]]
        number = np.searchsorted(self.first, places, side="right") - 1
        taken, tables = [np.zeros(0, np.int64)], list[pa.Table]()
        for i in np.unique(number):
            if (table := _table(self.files[i])) is not None:
                taken.append(there[number == i])
                tables.append(table.take(places[number == i] - self.first[i]))
        return np.concatenate(taken), tables


def hashes(texts: Sequence[str], images: Sequence[bytes | None]) -> list[bytes]:
    """Return a hash of each item's text and image, SIZE bytes."""
    found = []
    for text, image in zip(texts, images, strict=True):
        words = text.encode(errors="surrogatepass")
        total = hashlib.sha256(f"{len(words)} {image is None} ".encode() + words)
        total.update(image or b"")
        found.append(total.digest()[:SIZE])
    return found


def _known(path: Path) -> np.ndarray:
    """Return ROW [n] of the mark of a file that is laid aside; none where it has none."""
    try:
        return np.frombuffer(base64.b64decode(mark.rows if (mark := _read(path)) else ""), ROW)
    except ValueError:
        return np.zeros(0, ROW)


def _table(mark: Path) -> pa.Table | None:
    """Return the rows of a file that is laid aside, as `Encoding` does; None where its bytes are not those it had."""
    file = mark.with_suffix(".parquet")
    if not file.is_file() or io.sha256(file) != file.stem:
        return None
    rows, known = shard(file), _known(mark)
    if len(rows) != len(known):
        return None
    columns = {name: rows[name] for name in rows.column_names}
    for name in ("read", "there"):
        columns[name] = pa.array(known[name], pa.int64(), mask=known[name] < 0)
    return pa.table(columns)
