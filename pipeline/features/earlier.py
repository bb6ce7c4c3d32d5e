"""Rows that a feature set had of the same text and image before its items changed, by a hash of both.

Files that no longer fit the items are laid aside in a folder of the set, each called by its sha256, until the set is
whole. A mark beside each file says of what it was made. Letters: n rows of a file.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import io
from pipeline.features.node import shard

FOLDER = ".earlier"  # of the files that are laid aside
SIZE = 16  # bytes of a sha256 that are kept; two of n contents share them with a chance of n^2 / 2^129
ROW = np.dtype([("key", f"S{SIZE}"), ("read", "<i4"), ("there", "<i4")])
"""hash of text and image, and tokens of the text, see `Reading`; -1 where they are not known"""
KEPT = ("has_image", "has_text", "vector", "read", "there")  # columns of rows that are taken over


class Mark(NamedTuple):
    """What a file of a feature set was made of."""

    inputs: str  # JSON, see `Node.own_inputs`
    sha256: str  # of the file
    taken_over: int  # rows that an earlier file had
    rows: str  # ROW [n] in base 64; empty where rows are not known by text and image


def mark_of(file: Path) -> Path:
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

    def found(self, content: pa.Table) -> pa.Table:
        """Return what was read of items with columns `key`, a hash of it, `taken_over`, and the rows that are there."""
        keys = hashes(*texts_and_images(content))
        taken, tables = self._found(keys)
        place = np.full(len(keys), -1)
        place[taken] = np.arange(len(taken))
        content = content.append_column("key", pa.array(keys, pa.binary(SIZE)))
        content = content.append_column("taken_over", pa.array(place >= 0))
        if tables:
            rows = pa.concat_tables(tables, promote_options="default").take(pa.array(place, mask=place < 0))
            for name in KEPT:
                content = content.append_column(name, rows[name])
        return content

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


def completed(encode: Callable[[pa.Table], pa.Table], content: pa.Table) -> pa.Table:
    """Return the rows of items, given what `Earlier.found` returns: `encode` makes those that are not there."""
    taken_over = content["taken_over"].to_numpy()
    taken, new = np.flatnonzero(taken_over), np.flatnonzero(~taken_over)
    tables = [content.take(taken).select(["item_id", "asin", *KEPT])] if len(taken) else []
    if len(new) or not tables:
        tables.append(encode(content.take(new) if tables else content))
    rows = pa.concat_tables(tables, promote_options="default").take(np.argsort(np.concatenate([taken, new])))
    return rows.append_column("key", content["key"]).append_column("taken_over", content["taken_over"])


def texts_and_images(content: pa.Table) -> tuple[list[str], Sequence[bytes | None]]:
    """Return the texts and JPEGs of what was read of items; empty and None where a modality is not read."""
    names = content.column_names
    texts = content["text"].to_pylist() if "text" in names else [""] * len(content)
    return texts, Cells(content["image"]) if "image" in names else [None] * len(content)


class Cells(Sequence[Any]):
    """A column as Python's values, each copied when it is asked for: images are large."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        return self._column[int(row)].as_py()


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
