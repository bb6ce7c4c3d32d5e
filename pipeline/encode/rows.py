"""Cache of encoded rows, keyed by a hash of text and image: if 1 % of items are new, 1 % are encoded."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.encode.batching import texts_and_images

SIZE = 16  # bytes kept of a sha256; n contents collide with probability n^2 / 2^129
COLUMNS = ("key", "has_image", "has_text", "vector", "read", "there", "unknown", "halved")


class RowCache:
    """Rows of one encoder in a folder; only hashes and positions are in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # a file is named by its SHA-256, so damaged files are skipped
        self._files = [path for path in sorted(folder.glob("*.parquet")) if io.sha256(path) == path.stem]
        keys = [pq.read_table(path, columns=["key"])["key"].combine_chunks() for path in self._files]
        self._first = np.cumsum([0, *map(len, keys)])
        self._keys = pa.concat_arrays(keys) if keys else pa.array([], pa.binary(SIZE))

    def complete(self, content: pa.Table, encode: Callable[[pa.Table], pa.Table]) -> tuple[pa.Table, int]:
        """Return the rows of all items, encoding and caching unknown ones, and the number of known ones."""
        keys = pa.array(hash_contents(*texts_and_images(content)), pa.binary(SIZE))
        places = pc.index_in(keys, self._keys).fill_null(-1).to_numpy()
        known, new = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        found = [self._read_rows(places[known], content.take(known))] if len(known) else []
        if len(new):
            found.append(encode(content.take(new)))
            self._keep_rows(found[-1].append_column("key", keys.take(pa.array(new))))
        rows = pa.concat_tables(found, promote_options="default")
        return rows.take(np.argsort(np.concatenate([known, new]))), len(known)

    def _read_rows(self, places: np.ndarray, items: pa.Table) -> pa.Table:
        numbers = np.searchsorted(self._first, places, side="right") - 1
        tables, order = list[pa.Table](), list[np.ndarray]()
        for number in np.unique(numbers):
            at = np.flatnonzero(numbers == number)
            tables.append(pq.read_table(self._files[number]).take(places[at] - self._first[number]))
            order.append(at)
        rows = pa.concat_tables(tables, promote_options="default").take(np.argsort(np.concatenate(order)))
        rows = rows.add_column(0, "item_id", items["item_id"]).add_column(1, "asin", items["asin"])
        return rows.drop_columns("key")

    def _keep_rows(self, rows: pa.Table) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=self._folder) as folder:  # several processes may write here
            path = Path(folder, "rows")
            pq.write_table(rows.select([name for name in COLUMNS if name in rows.column_names]), path)
            path.replace(self._folder / f"{io.sha256(path)}.parquet")


def hash_contents(texts: Sequence[str], images: Sequence[bytes | None]) -> list[bytes]:
    hashes = []
    for text, image in zip(texts, images, strict=True):
        words = text.encode(errors="surrogatepass")
        total = hashlib.sha256(f"{len(words)} {image is None} ".encode() + words)
        total.update(image or b"")
        hashes.append(total.digest()[:SIZE])
    return hashes
