"""Approximate nearest neighbours by an inverted file on disk (FAISS). N rows, F width, K neighbours, C candidates."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.ops.linalg import unit_rows

# rows in memory: vectors only, and with candidates
PART, BLOCK = 16_384, 2048
SAMPLE, POINTS = 4 * PART, 32  # rows for k-means; minimum per cell
CANDIDATES = 8  # candidates to re-rank, as a multiple of K: 8-bit codes cannot separate near-duplicates
QUERIES = 1000  # rows searched exactly, to choose the number of cells to probe
RECALL = 0.95  # required recall of the K nearest neighbours, without the row itself
MOST = 4  # at most 1/MOST of the cells, or FEW, are probed: beyond that exact search is about as fast
FEW = 32  # cells that can always be probed, and the maximum if no recall is required
CROWDED = 16  # maximum rows scanned per cell, in average cell sizes: equal vectors all fall into one cell
TIE = 1e-6  # tolerance for equal cosines


class Settled(NamedTuple):
    """Chosen number of probes, and the recall it reaches."""

    cells: int = 0
    probes: int = 0  # cells per search
    recall: float = 1.0  # of K nearest neighbours, measured on QUERIES rows, without the row itself


@contextmanager
def one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@contextmanager
def _silence_stdout() -> Iterator[None]:
    """Redirect file descriptor 1, to which FAISS logs the growth of its lists."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def train_index(sample: np.ndarray, n: int, codes: str) -> Any:
    """Train an empty inverted file for n rows with 4 sqrt(n) k-means cells; `codes` is FAISS's encoding: SQ8, say."""
    cells = max(1, min(round(4 * n**0.5), len(sample) // POINTS))
    index: Any = faiss.index_factory(sample.shape[1], f"IVF{cells},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical, index.cp.seed = True, 0
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, len(sample)
    with one_thread():  # a fixed order of sums makes centroids reproducible
        index.train(sample)
    return index


class Inverted:
    """On-disk index of a catalogue, 5 bytes per vector component."""

    def __init__(self, parts: Iterable[np.ndarray], width: int, folder: Path) -> None:
        """Index float32 [b, F] blocks in order; `directed`, bool [N], marks rows with a direction."""
        path, usable = folder / "units.f32", []
        with path.open("wb") as file:
            for part in parts:
                rows, directed = unit_rows(part)
                file.write(rows.data)
                usable.append(directed)
        self.directed = np.concatenate(usable)
        self._units = np.memmap(path, np.float32, "r").reshape(-1, width)
        if not (rows := np.flatnonzero(self.directed)).size:
            return
        drawn = np.random.default_rng(0).permutation(len(rows))[:SAMPLE]
        self.index = train_index(self._units[rows[np.sort(drawn)]], len(rows), "SQ8")
        lists: Any = faiss.OnDiskInvertedLists(self.index.nlist, self.index.code_size, str(folder / "lists"))
        self.index.replace_invlists(lists, True)
        lists.this.disown()  # the index owns them
        with _silence_stdout():
            for own in self.parts():
                for at in range(0, len(own), BLOCK):
                    self.index.add_with_ids(self._units[own[at : at + BLOCK]], own[at : at + BLOCK])

    def parts(self) -> Iterator[np.ndarray]:
        """Yield the row numbers with a direction, int64 [n], per PART rows."""
        return (at + np.flatnonzero(self.directed[at : at + PART]) for at in range(0, len(self.directed), PART))

    def search(self, rows: np.ndarray, k: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return exact cosines and rows, [n, K], of the nearest rows in the probed cells, itself first; -1: none."""
        self.index.nprobe = probes
        self.index.max_codes = CROWDED * probes * max(CANDIDATES * k, self.index.ntotal // self.index.nlist)
        ranked = [(np.empty((0, k), np.float32), np.empty((0, k), np.int64))]
        step = max(1, BLOCK // CANDIDATES // k)  # rows per re-ranking step
        for at in range(0, len(rows), BLOCK):
            own = rows[at : at + BLOCK]
            _, found = self.index.search(self._units[own], CANDIDATES * k)
            found = np.concatenate([own[:, None], np.where(found == own[:, None], -1, found)], axis=1)
            ranked += [self._rank(own[to : to + step], found[to : to + step], k) for to in range(0, len(own), step)]
        cosines, ids = map(np.concatenate, zip(*ranked, strict=True))
        return cosines, ids

    def _rank(self, rows: np.ndarray, found: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        cosines = np.einsum("nf,ncf->nc", self._units[rows], self._units[found])
        rank = np.where(found < 0, -np.inf, cosines)
        # the first candidate is the row itself
        rank[:, 0] = np.inf
        order = np.lexsort((found, -rank), axis=1)[:, :k]
        return np.take_along_axis(cosines, order, 1), np.take_along_axis(found, order, 1)

    def settle(self, k: int, required: bool = True) -> Settled:
        """Increase the number of probes until RECALL is reached; UserError if a quarter of the cells is too few."""
        usable, cells = np.flatnonzero(self.directed), self.index.nlist
        rows = usable[np.sort(np.random.default_rng(1).permutation(len(usable))[:QUERIES])]
        last, probes, most = self._last(rows, k), 1, max(min(cells, FEW), cells // MOST * required)
        while True:
            cosines, ids = self.search(rows, k, probes)
            hits = (ids >= 0) & (cosines >= last[:, None] - TIE)
            recall = float(hits[:, 1:].mean()) if k > 1 else 1.0
            if recall >= RECALL or probes == most:
                break
            probes = min(most, probes + (probes + 1) // 2)
        if required and recall < RECALL:
            raise UserError(
                f"an inverted file finds {recall:.3f} of the nearest neighbours in {probes:,} of {cells:,} cells, less "
                f"than {RECALL}: these vectors form no groups; give 'graph.index: exact', which takes about as long"
            )
        return Settled(cells, probes, round(recall, 4))

    def _last(self, rows: np.ndarray, k: int) -> np.ndarray:
        """Return the exact cosine of each row's Kth neighbour, itself included: float32 [n]."""
        queries, best = self._units[rows], np.full((len(rows), k), -np.inf, np.float32)
        for own in self.parts():
            cosines, _ = faiss.knn(queries, self._units[own], min(k, len(own)), metric=faiss.METRIC_INNER_PRODUCT)
            best = np.sort(np.concatenate([best, cosines], axis=1), axis=1)[:, ::-1][:, :k]
        return best[:, -1]
