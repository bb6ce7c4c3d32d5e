"""Encoded rows by content, kept across runs and catalogues (n items of a shard)."""

import hashlib
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.encoders.chunks import Reading
from alignrec.pipeline.features.batching import texts_and_images

KEY_BYTES = 16  # of the truncated sha256; n contents collide with probability n^2 / 2^129
# counts are null without a text
CACHED_COLUMNS = ("key", "has_image", "has_text", "vector", *Reading._fields)


class RowCache:
    """Cache of one encoder's rows by content, across runs and catalogues.

    Only hashes and positions are in memory. It is io/journal.py that resumes a run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Path] = []
        keys: list[pa.ChunkedArray] = []
        for path in sorted(folder.glob("*.parquet")):
            with suppress(pa.ArrowException, OSError):  # damaged
                keys.append(pq.read_table(path, page_checksum_verification=True)["key"])
                self._files.append(path)
        self._first_row = np.cumsum([0, *map(len, keys)])  # of each file
        self._keys = pa.chunked_array(
            [chunk for column in keys for chunk in column.chunks], pa.binary(KEY_BYTES)
        )

    def find(self, keys: pa.Array) -> np.ndarray:
        """Return the positions of contents among the cached rows, int64 [n], -1 if unknown."""
        positions: np.ndarray = pc.index_in(keys, self._keys).fill_null(-1).to_numpy()
        return positions

    def complete(
        self, content: pa.Table, positions: np.ndarray, new_rows: pa.Table | None
    ) -> pa.Table:
        """Return the rows of all items, in order: cached ones, and `new_rows` of unknown ones."""
        tables: list[pa.Table] = []
        order: list[np.ndarray] = []
        file_of = np.searchsorted(self._first_row, positions, side="right") - 1
        for number in np.unique(file_of[positions >= 0]):
            members = np.flatnonzero(file_of == number)
            cached = pq.read_table(self._files[number]).drop_columns("key")
            rows = cached.take(positions[members] - self._first_row[number])
            items = content.take(members)
            rows = rows.add_column(0, "item_id", items["item_id"])
            tables.append(rows.add_column(1, "asin", items["asin"]))
            order.append(members)

        if new_rows is not None:
            tables.append(new_rows)
            order.append(np.flatnonzero(positions < 0))
        merged = pa.concat_tables(tables, promote_options="default")
        return merged.take(np.argsort(np.concatenate(order)))

    def add(self, keys: pa.Array, rows: pa.Table) -> None:
        rows = rows.append_column("key", keys)
        rows = rows.select([name for name in CACHED_COLUMNS if name in rows.column_names])
        self._folder.mkdir(parents=True, exist_ok=True)
        # several processes may write here
        with TemporaryDirectory(prefix=".", dir=self._folder) as folder:
            path = Path(folder, "rows")
            pq.write_table(rows, path, write_page_checksum=True)
            path.replace(self._folder / f"{io.sha256(path)}.parquet")


def hash_content(content: pa.Table) -> pa.Array:
    """Return a key of the text and image of each item."""
    keys = []
    for text, image in zip(*texts_and_images(content), strict=True):
        words = text.encode(errors="surrogatepass")
        total = hashlib.sha256(f"{len(words)} {image is None} ".encode() + words)
        total.update(image or b"")
        keys.append(total.digest()[:KEY_BYTES])
    return pa.array(keys, pa.binary(KEY_BYTES))
