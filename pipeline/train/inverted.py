"""An inverted file of more vectors than memory holds: an IndexIVFFlat of FAISS by inner product, in FAISS's format.

Memory holds the cells, the cell of each row, and a part of the vectors. Letters: N rows, M of them, D width, K of each
query.
"""

import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import cast

import faiss
import numpy as np

from pipeline.graph import approximate
from pipeline.train.embeddings import Embeddings

LISTS, SPARSE, FULL = b"ilar", b"sprs", b"full"  # how FAISS begins lists, and their sizes where few or many have rows
EMPTY = 32  # bytes of lists without rows: name, number of lists, bytes of a row, and no size
ID = 8  # bytes of a row's number
QUERIES = 128  # whose cells are ordered at a time


class Inverted:
    """A trained index without rows, and the list of each row."""

    def __init__(self, vectors: Embeddings) -> None:
        """Learn the cells on a sample, and find that of each row; the same bytes for the same vectors."""
        n = len(vectors)
        sample = np.random.default_rng(0).choice(n, min(n, approximate.sampled(n)), replace=False)
        self.index = approximate.inverted(vectors.take(np.sort(sample)), n)
        self._quantizer = faiss.downcast_index(self.index.quantizer)
        self._lists = np.concatenate([self._quantizer.assign(part, 1).ravel().astype(np.int32) for part in vectors])

    def places(self, queries: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Return when a search of each query, float32 [M, D], comes to the list of each row, int [M, K], from 0."""
        found = np.empty(ids.shape, np.int64)
        for at in range(0, len(queries), QUERIES):
            _, near = self._quantizer.search(queries[at : at + QUERIES], self.index.nlist)
            place = np.empty_like(near)
            np.put_along_axis(place, near, np.arange(self.index.nlist)[None], axis=1)
            found[at : at + QUERIES] = np.take_along_axis(place, self._lists[ids[at : at + QUERIES]], axis=1)
        return found

    def write(self, path: Path, vectors: Iterable[np.ndarray]) -> None:
        """Write the bytes that FAISS writes for this index with its rows."""
        sizes = np.bincount(self._lists, minlength=self.index.nlist)
        head, bytes_ = self._head(sizes), self.index.code_size + ID
        starts = len(head) + np.cumsum([0, *sizes * bytes_])
        numbers = starts[:-1] + sizes * self.index.code_size  # of a list come after its vectors
        done, first = np.zeros_like(sizes), 0
        with path.open("wb") as file:
            file.write(head)
            file.truncate(int(starts[-1]))
            file.flush()
            for part in vectors:
                own = self._lists[first : first + len(part)]
                order = np.argsort(own, kind="stable")
                bounds = [0, *(np.flatnonzero(np.diff(own[order])) + 1).tolist(), len(order)]
                for a, b in pairwise(bounds):  # each list is elsewhere in the file
                    rows, to = order[a:b], int(own[order[a]])
                    data, ids = part[rows].tobytes(), (first + rows).astype(np.int64).tobytes()
                    os.pwrite(file.fileno(), data, int(starts[to] + done[to] * self.index.code_size))
                    os.pwrite(file.fileno(), ids, int(numbers[to] + done[to] * ID))
                    done[to] += b - a
                first += len(part)

    def _head(self, sizes: np.ndarray) -> bytes:
        """Return what comes before the lists' rows."""
        self.index.ntotal = len(self._lists)
        written = cast(bytes, faiss.serialize_index(self.index).tobytes())
        self.index.ntotal = 0
        lists = np.array([self.index.nlist, self.index.code_size], np.uint64).tobytes()
        if written[-EMPTY:] != LISTS + lists + SPARSE + bytes(8):
            raise RuntimeError(f"FAISS {faiss.__version__} writes inverted lists in another format")
        held = np.flatnonzero(sizes)
        if len(held) > len(sizes) // 2:
            counts = FULL + np.uint64(len(sizes)).tobytes() + sizes.astype(np.uint64).tobytes()
        else:
            pairs = np.column_stack([held, sizes[held]]).astype(np.uint64)
            counts = SPARSE + np.uint64(pairs.size).tobytes() + pairs.tobytes()
        return written[:-EMPTY] + LISTS + lists + counts
