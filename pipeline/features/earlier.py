"""Cached rows of a feature set whose items changed, keyed by a hash of text and image.

Outdated files are moved to a folder of the set, each named by its sha256, until the set is complete. A mark per file
records its inputs. Letters: n rows of a file.
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

FOLDER = ".earlier"  # with the outdated files
SIZE = 16  # bytes kept of a sha256; n contents collide with probability n^2 / 2^129
ROW = np.dtype([("key", f"S{SIZE}"), ("read", "<i4"), ("there", "<i4")])
"""hash of text and image, and tokens of the text, see `Reading`; -1 if unknown"""
KEPT = ("has_image", "has_text", "vector", "read", "there")  # columns of reused rows


class Mark(NamedTuple):
    """Inputs of a file of a feature set."""

    inputs: str  # JSON, see `Node.own_inputs`
    sha256: str  # of the file
    taken_over: int  # reused rows
    rows: str  # ROW [n] in base 64; empty for rows without a hash


def mark_of(file: Path) -> Path:
    return file.parent / ".shards" / file.stem / io.KEY


def read_mark(file: Path) -> Mark | None:
    return _parse(mark_of(file))


def _parse(path: Path) -> Mark | None:
    try:
        return Mark(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def write_mark(file: Path, inputs: str, rows: pa.Table) -> None:
    known = np.zeros(len(rows) if "key" in rows.column_names else 0, ROW)
    if len(known):
        known["key"] = rows["key"].to_pylist()
        for name in ("read", "there"):
            known[name] = rows[name].fill_null(-1).to_numpy() if name in rows.column_names else -1
    encoded = base64.b64encode(known.tobytes()).decode()
    mark = Mark(inputs, io.sha256(file), count(rows, "taken_over"), encoded)
    io.write_bytes(mark_of(file), json.dumps(mark._asdict()).encode())


def count(rows: pa.Table, column: str) -> int:
    return int(pc.sum(rows[column]).as_py() or 0) if column in rows.column_names else 0


def lay_aside(file: Path, mark: Mark) -> None:
    """Move an outdated file, its mark first, so that a kill loses neither."""
    folder = file.parent / FOLDER
    if not io.begun(folder, ""):
        io.begin(folder, "")
    io.write_bytes(folder / f"{mark.sha256}.json", json.dumps(mark._asdict()).encode())
    file.replace(folder / f"{mark.sha256}.parquet")
    mark_of(file).unlink(missing_ok=True)


class Earlier:
    """The rows of the outdated files; only hashes and places are in memory."""

    def __init__(self, folder: Path | None) -> None:
        aside = folder and folder / FOLDER
        marks = io.journal(aside) if aside and io.begun(aside, "") else {}
        self.files = sorted(path for path in marks if path.is_file() and io.sha256(path) in marks[path])
        keys = [_known(path)["key"] for path in self.files]
        self.first = np.cumsum([0, *map(len, keys)])
        joined = pa.py_buffer(b"".join(key.tobytes() for key in keys))
        self.keys = pa.Array.from_buffers(pa.binary(SIZE), int(self.first[-1]), [None, joined])

    def found(self, content: pa.Table) -> pa.Table:
        """Append columns `key`, a hash of the inputs, `taken_over`, and the cached rows, null for new ones."""
        keys = pa.array(hashes(*texts_and_images(content)), pa.binary(SIZE))
        places = pc.index_in(keys, self.keys).fill_null(-1).to_numpy()
        number = np.searchsorted(self.first, places, side="right") - 1  # -1 for new rows
        place, tables, total = np.full(len(keys), -1), list[pa.Table](), 0
        for i in np.unique(number[number >= 0]):
            if (table := _table(self.files[i])) is not None:
                tables.append(table.take(places[number == i] - self.first[i]))
                place[number == i] = np.arange(total, total := total + len(tables[-1]))
        content = content.append_column("key", keys).append_column("taken_over", pa.array(place >= 0))
        if tables:
            rows = pa.concat_tables(tables, promote_options="default").take(pa.array(place, mask=place < 0))
            for name in KEPT:
                content = content.append_column(name, rows[name])
        return content


def complete(encode: Callable[[pa.Table], pa.Table], content: pa.Table) -> pa.Table:
    """Encode the rows that `Earlier.found` did not find."""
    taken_over = content["taken_over"].to_numpy()
    taken, new = np.flatnonzero(taken_over), np.flatnonzero(~taken_over)
    tables = [content.take(taken).select(["item_id", "asin", *KEPT])] if len(taken) else []
    if len(new) or not tables:
        tables.append(encode(content.take(new) if tables else content))
    rows = pa.concat_tables(tables, promote_options="default").take(np.argsort(np.concatenate([taken, new])))
    return rows.append_column("key", content["key"]).append_column("taken_over", content["taken_over"])


def texts_and_images(content: pa.Table) -> tuple[list[str], Sequence[bytes | None]]:
    names = content.column_names
    texts = content["text"].to_pylist() if "text" in names else [""] * len(content)
    return texts, Cells(content["image"]) if "image" in names else [None] * len(content)


class Cells(Sequence[Any]):
    """A column of Python values, each copied on access: images are large."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        return self._column[int(row)].as_py()


def hashes(texts: Sequence[str], images: Sequence[bytes | None]) -> list[bytes]:
    found = []
    for text, image in zip(texts, images, strict=True):
        words = text.encode(errors="surrogatepass")
        total = hashlib.sha256(f"{len(words)} {image is None} ".encode() + words)
        total.update(image or b"")
        found.append(total.digest()[:SIZE])
    return found


def _known(path: Path) -> np.ndarray:
    """Return ROW [n] of an outdated file; empty if its mark is missing or damaged."""
    try:
        return np.frombuffer(base64.b64decode(mark.rows if (mark := _parse(path)) else ""), ROW)
    except ValueError:
        return np.zeros(0, ROW)


def _table(mark: Path) -> pa.Table | None:
    """Return the rows of an outdated file; None if its bytes changed."""
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
