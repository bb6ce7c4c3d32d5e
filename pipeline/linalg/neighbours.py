"""K nearest neighbours of items by exact cosine with FAISS; inverted.py has the approximate ones.

I items, N rows, F feature width, K neighbours.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import faiss
import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.linalg.top_k import select_top_k
from alignrec.pipeline.runtime import engine

# queries per search on a GPU, and per CPU thread; bounds memory to that times I scores
GPU_QUERIES = 1024
CPU_QUERIES = 256
MAX_GPU_NEIGHBOURS = 2048  # per search, a limit of FAISS
# fraction of free GPU memory for an index; the rest is for searches
GPU_MEMORY_SHARE = 0.5
GPU_SCRATCH_BYTES = 256 * 2**20  # temporary memory per search
ROWS_PER_SHARD = 16_384  # whose neighbours are found, and written, together
MAX_FIT_ROWS = 262_144  # for k-means
ROWS_PER_CELL = 32  # for k-means
LOG = logging.getLogger(__name__)

Index = Literal["exact", "ivf"]


@contextmanager
def one_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def count_fit_rows(n: int) -> int:
    """Return how many of n rows to draw as the sample of `train_index`."""
    return min(n, MAX_FIT_ROWS, ROWS_PER_CELL * _count_cells(n))


def train_index(sample: np.ndarray, n: int) -> Any:
    """Train an empty inverted file for n rows, with 4 sqrt(n) cells if the sample allows them."""
    cells = max(1, min(_count_cells(n), len(sample) // ROWS_PER_CELL))
    width = sample.shape[1]
    index: Any = faiss.index_factory(width, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.seed = 0
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = len(sample)
    with one_thread():  # a fixed order of sums makes centroids reproducible
        index.train(sample)
    return index


def _count_cells(n: int) -> int:
    return round(4 * n**0.5)


def choose_index(index: Literal["auto", "exact", "ivf"], n_items: int, exact_up_to: int) -> Index:
    if index != "auto":
        return index
    return "exact" if n_items <= exact_up_to else "ivf"


class ExactSearch:
    """All pairs of float32 [I, F], in memory."""

    def __init__(self, features: np.ndarray, k: int) -> None:
        """Take the vectors; rows that are zero or not finite have no direction.

        `directed`, bool [I], marks the others, and `shards` counts what can be searched apart.
        """
        units, self.directed = unit_rows(features)
        self._rows = np.flatnonzero(self.directed)
        self._units = units[self._rows]
        self._k = min(k, len(self._rows))
        self._index: faiss.Index | None = None
        self.shards = max(1, -(-len(self._rows) // ROWS_PER_SHARD))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_index": None}  # an index of a GPU cannot be pickled

    def find(self, shard: int) -> pa.Table:
        """Return the neighbours of a shard's items as EDGES, in item order."""
        queries = np.arange(len(self._rows))[shard * ROWS_PER_SHARD :][:ROWS_PER_SHARD]
        cosines, columns = self._search(queries)

        # items without a direction belong to the shard of the item before them
        starts = self._rows[::ROWS_PER_SHARD]
        first = starts[shard] if shard else 0
        end = starts[shard + 1] if shard + 1 < self.shards else len(self.directed)
        isolated = first + np.flatnonzero(~self.directed[first:end])
        return edge_table(self._rows[queries], cosines, self._rows[columns], isolated)

    def join(self, tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
        """Return EDGES of all items, in item order, from those of all shards in order."""
        return tables

    def _search(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return cosines and rows, [n, K], of the nearest of n rows, itself first."""
        cosines = np.empty((len(queries), self._k), np.float32)
        columns = np.empty((len(queries), self._k), np.int64)
        if not len(queries):
            return cosines, columns

        if self._index is None:
            flat = faiss.IndexFlatIP(self._units.shape[1])
            flat.add(self._units)
            self._index = _on_gpu(flat, len(self._units), self._k + 1)
        step = CPU_QUERIES
        place: engine.Threads | None = engine.Threads()
        if not isinstance(self._index, faiss.IndexFlatIP):
            step = GPU_QUERIES
            place = None

        blocks = (queries[start : start + step] for start in range(0, len(queries), step))
        search = partial(_search_block, self._index, self._units, self._k)
        # each block is computed by a single thread: equal bytes for any number of threads
        with threadpool_limits(1):
            for block, nearest in engine.run_jobs(lambda: search, blocks, place):
                places = block - queries[0]
                cosines[places], columns[places] = nearest
        return cosines, columns


def find_neighbours(features: np.ndarray, k: int) -> pa.Table:
    """Return the K nearest items by cosine of float32 [I, F], itself first, ties by item.

    The result is EDGES in item order. Rows that are zero or not finite are no item's neighbour and
    keep only themselves.
    """
    search = ExactSearch(features, k)
    return pa.concat_tables(search.find(shard) for shard in range(search.shards))


def edge_table(
    items: np.ndarray, cosines: np.ndarray, ids: np.ndarray, isolated: np.ndarray
) -> pa.Table:
    """Return EDGES, sorted, from items [N], their cosines and ids [N, K], and isolated items [M].

    An id of -1 is no neighbour.
    """
    rows, ranks = np.nonzero(ids >= 0)
    item = np.concatenate([items[rows], isolated])
    neighbour = np.concatenate([ids[rows, ranks], isolated])
    rank = np.concatenate([ranks, np.zeros(len(isolated), int)])
    cosine = np.concatenate([cosines[rows, ranks], np.ones(len(isolated), np.float32)])

    order = np.argsort(item, kind="stable")
    return pa.table({
        "item_id": item[order].astype(np.int32),
        "neighbour_id": neighbour[order].astype(np.int32),
        "rank": rank[order].astype(np.int32),
        "cosine": cosine[order].astype(np.float32),
    })  # fmt: skip


def _search_block(
    index: faiss.Index, units: np.ndarray, k: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    with one_thread():  # OpenMP's setting is per thread
        cosines, ids = index.search(units[rows], min(k + 1, len(units)))

    itself = rows[:, None]
    untied = (ids[:, :k] == itself).any(1)  # has itself among K, and no tie at K
    if cosines.shape[1] > k:
        untied &= cosines[:, k - 1] > cosines[:, k]
        cosines = cosines[:, :k]
        ids = ids[:, :k]
    if not untied.all():
        # search again, as FAISS does not define which of several equal neighbours it returns
        cosines[~untied], ids[~untied] = _search_ties(units, rows[~untied], k)

    keys = np.where(ids == itself, np.inf, cosines)  # the row itself first
    order = np.lexsort((ids, -keys), axis=1)
    return np.take_along_axis(cosines, order, 1), np.take_along_axis(ids, order, 1)


def _search_ties(units: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and rows, [n, K], of the nearest, the row itself first, ties by row."""
    scores = torch.from_numpy(units[rows] @ units.T)
    itself = torch.from_numpy(rows)[:, None]
    values, ids = select_top_k(scores.scatter(1, itself, torch.inf), k)
    values[:, :1] = scores.gather(1, itself)
    return values.numpy(), ids.numpy()


def has_gpu() -> bool:
    # only in package faiss-gpu
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _on_gpu(index: faiss.Index, rows: int, k: int) -> faiss.Index:
    """Copy an IndexFlat to the first GPU.

    It is returned unchanged without a GPU or if it does not fit.
    """
    if not has_gpu():
        return index

    index_bytes = rows * (4 * index.d + 8)
    free_bytes, _ = torch.cuda.mem_get_info(0)
    if index_bytes + GPU_SCRATCH_BYTES > GPU_MEMORY_SHARE * free_bytes:
        LOG.warning(
            "an index of %.1f GiB is too large for the GPU's free memory; it stays on the CPU",
            index_bytes / 2**30,
        )
        return index
    if k > MAX_GPU_NEIGHBOURS:
        LOG.warning(
            "a GPU returns %d neighbours at most; the index stays on the CPU", MAX_GPU_NEIGHBOURS
        )
        return index

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(GPU_SCRATCH_BYTES)
    return faiss.index_cpu_to_gpu(resources, 0, index)
