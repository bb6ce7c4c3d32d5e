"""Approximate nearest neighbours by an inverted file on disk; memory does not grow with the catalogue.

Cells are found on a sample. Parts of the catalogue are added one at a time, a byte per number, and FAISS merges them on
disk. Candidates are re-ranked by the exact vectors. Letters: N rows, F width, K neighbours, C candidates.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import faiss
import numpy as np
from faiss.contrib.ondisk import merge_ondisk

from pipeline.errors import UserError
from pipeline.ops.rows import unit_rows

PART, BLOCK = 16_384, 2048  # rows held at a time, twice: read, and as FAISS has them; and where more copies are made
SAMPLE = 4 * PART  # rows that the cells are found on, a byte a number
POINTS, SEEN = 32, 64  # rows a cell that k-means sees, at least; and at most of an index in memory
ITERATIONS = 10  # of k-means
CANDIDATES = 8  # candidates to re-rank, as a multiple of K: 8-bit codes cannot separate near-duplicates
QUERIES = 1000  # rows searched exactly, by which it is settled how many cells are looked into
RECALL = 0.95  # of the K nearest neighbours, the row itself aside, that are to be found
MOST = 4  # upper bound on the fraction of cells probed, or FEW; beyond that the exact search is about as fast
FEW = 32  # cells looked into at most where nothing need be found
CROWDED = 16  # times the average cell's rows that are looked at in a cell: where many vectors are equal, all lie in one
TIE = 1e-6  # cosines that differ by less count as equal


class Found(NamedTuple):
    """Neighbours of some rows, the row itself first."""

    rows: np.ndarray  # int64 [n]
    cosines: np.ndarray  # float32 [n, K], descending
    ids: np.ndarray  # int64 [n, K]; -1 fills up a row for which the index returns fewer


@dataclass(frozen=True)
class Files:
    """Files of a search."""

    folder: Path
    width: int

    def units(self) -> np.ndarray:
        """Return the rows of length 1, float32 [N, F], mapped; zeros where there is no direction."""
        return np.memmap(self.folder / "units.f32", np.float32, "r").reshape(-1, self.width)

    def index(self, name: str) -> str:
        return str(self.folder / f"{name}.faiss")  # `cells` has no rows; `merged` has all, its lists in `lists`


class Settled(NamedTuple):
    """Number of cells, cells probed, and recall."""

    cells: int = 0
    probes: int = 0  # cells that a search looks into
    recall: float = 1.0  # of the K nearest neighbours of QUERIES rows, the row itself aside


def build(parts: Iterable[np.ndarray], width: int, folder: Path) -> tuple[Files, np.ndarray]:
    """Write an index of float32 [b, F] in order, 5 bytes a number; return files, and bool [N], the directed."""
    files, usable = Files(folder, width), []
    with (folder / "units.f32").open("wb") as file:
        for part in parts:
            units, directed = unit_rows(part)
            file.write(units.data)
            usable.append(directed)
    directed = np.concatenate(usable)
    if directed.any():
        _train(files, directed)
        shards = [_shard(files, directed, start) for start in range(0, len(directed), PART)]
        index = faiss.read_index(files.index("cells"))
        with _silenced():
            merge_ondisk(index, shards, files.index("lists"))
        faiss.write_index(index, files.index("merged"))
        for shard in shards:
            Path(shard).unlink()
    return files, directed


def _train(files: Files, directed: np.ndarray) -> None:
    usable = np.flatnonzero(directed)
    rows = usable[np.sort(np.random.default_rng(0).permutation(len(usable))[:SAMPLE])]
    units, width = files.units(), files.width
    cells = max(1, min(round(4 * len(usable) ** 0.5), len(rows) // POINTS))
    codec = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    codec.train(units[rows[:: len(rows) // PART + 1]])
    codes = np.empty((len(rows), codec.sa_code_size()), np.uint8)
    for at in range(0, len(rows), BLOCK):
        codes[at : at + BLOCK] = codec.sa_encode(units[rows[at : at + BLOCK]])
    flat = faiss.IndexFlatIP(width)
    means = faiss.Clustering(width, cells)
    means.spherical, means.niter, means.seed, means.min_points_per_centroid = True, ITERATIONS, 0, 1
    means.max_points_per_centroid, means.decode_block_size = SAMPLE, BLOCK
    with one_thread():  # sums in one order: the same centroids each time
        means.train_encoded(codes, codec, flat)
        index = faiss.IndexIVFScalarQuantizer(flat, width, cells, codec.sq.qtype, faiss.METRIC_INNER_PRODUCT)
        index.train(units[rows[:: len(rows) // BLOCK + 1]])
    faiss.write_index(index, files.index("cells"))


def _shard(files: Files, directed: np.ndarray, start: int) -> str:
    index, units = faiss.read_index(files.index("cells")), files.units()
    rows = start + np.flatnonzero(directed[start : start + PART])
    for at in range(0, len(rows), BLOCK):
        index.add_with_ids(units[rows[at : at + BLOCK]], rows[at : at + BLOCK])
    path = files.index(str(start))
    faiss.write_index(index, path)
    return path


@contextmanager
def _silenced() -> Iterator[None]:
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


class Searcher:
    """Searches the index for some of its rows."""

    def __init__(self, files: Files, k: int, probes: int = 1) -> None:
        self._units, self._k = files.units(), k
        self.index = cast(Any, faiss.read_index(files.index("merged")))
        self.look_into(probes)

    def look_into(self, probes: int) -> None:
        self.index.nprobe = probes
        self.index.max_codes = CROWDED * probes * max(CANDIDATES * self._k, self.index.ntotal // self.index.nlist)

    def __call__(self, rows: np.ndarray) -> Found:
        """Return the K nearest of each row among the index's candidates, by exact cosine, equal ones by row."""
        ranked = [(np.empty((0, self._k), np.float32), np.empty((0, self._k), np.int64))]
        step = max(1, BLOCK // CANDIDATES // self._k)  # rows whose candidates are read at a time
        for at in range(0, len(rows), BLOCK):
            own = rows[at : at + BLOCK]
            _, found = self.index.search(self._units[own], CANDIDATES * self._k)
            found = np.concatenate([own[:, None], np.where(found == own[:, None], -1, found)], axis=1)
            ranked += [self._ranked(own[to : to + step], found[to : to + step]) for to in range(0, len(own), step)]
        cosines, ids = map(np.concatenate, zip(*ranked, strict=True))
        return Found(rows, cosines, ids)

    def _ranked(self, rows: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cosines = np.einsum("nf,ncf->nc", self._units[rows], self._units[found])
        rank = np.where(found < 0, -np.inf, cosines)
        rank[:, 0] = np.inf
        order = np.lexsort((found, -rank), axis=1)[:, : self._k]
        return np.take_along_axis(cosines, order, 1), np.take_along_axis(found, order, 1)


def search(files: Files, directed: np.ndarray, k: int, settled: Settled) -> Iterator[Found]:
    parts = (at + np.flatnonzero(directed[at : at + PART]) for at in range(0, len(directed), PART))
    return map(Searcher(files, k, settled.probes), parts)


def settle(files: Files, directed: np.ndarray, k: int, required: bool = True) -> Settled:
    """Probe more cells until recall is RECALL; UserError if a quarter of them is too few."""
    usable = np.flatnonzero(directed)
    rows = usable[np.sort(np.random.default_rng(1).permutation(len(usable))[:QUERIES])]
    searcher, last = Searcher(files, k), _last(files.units(), directed, rows, k)
    cells = searcher.index.nlist
    for probes in probe_counts(max(min(cells, FEW), cells // MOST * required)):
        searcher.look_into(probes)
        _, cosines, ids = searcher(rows)
        hits = (ids >= 0) & (cosines >= last[:, None] - TIE)
        recall = float(hits[:, 1:].mean()) if k > 1 else 1.0
        if recall >= RECALL:
            break
    if required and recall < RECALL:
        raise UserError(
            f"an inverted file finds {recall:.3f} of the nearest neighbours in {probes:,} of {cells:,} cells, less "
            f"than {RECALL}: these vectors form no groups; give 'graph.index: exact', which takes about as long"
        )
    return Settled(cells, probes, round(recall, 4))


def probe_counts(most: int) -> list[int]:
    numbers = [n for power in range(1, most.bit_length() + 1) for n in (2**power // 2, 2**power * 3 // 4)]
    return sorted({n for n in numbers if n < most} | {most})


def _last(units: np.ndarray, directed: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Return the exact cosine of each row's Kth nearest, itself included: float32 [n]."""
    queries, best = units[rows], np.full((len(rows), k), -np.inf, np.float32)
    for start in range(0, len(units), BLOCK):
        part = units[start : start + BLOCK][directed[start : start + BLOCK]]
        cosines, _ = faiss.knn(queries, part, min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
        best = np.sort(np.concatenate([best, cosines], axis=1), axis=1)[:, ::-1][:, :k]
    return best[:, -1]


def sampled(n: int) -> int:
    """Return how many of N rows the cells of `inverted` are found on."""
    return POINTS * _cells(n)


def inverted(sample: np.ndarray, n: int) -> faiss.IndexIVFFlat:
    """Return an inverted file without rows for N by inner product, over 4 sqrt(N) cells: k-means of the directions of
    a sample, float32 [M, D]."""
    width = sample.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, _cells(n), faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.seed, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = 0, SEEN, 1
    with one_thread():  # sums in one order: the same centroids each time
        index.train(sample)
    return index


def _cells(n: int) -> int:
    return max(1, min(round(4 * n**0.5), n // 4))


@contextmanager
def one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
