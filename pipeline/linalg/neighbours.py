"""K nearest neighbours of items by cosine with FAISS: exact, or by an inverted file on disk.

I items, N rows, F feature width, K neighbours, C candidates.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.linalg.scores import select_top_k
from alignrec.pipeline.runtime import engine

# queries per search on a GPU, and per CPU thread; bounds memory to that times I scores
GPU_QUERIES = 1024
CPU_QUERIES = 256
MAX_GPU_NEIGHBOURS = 2048  # per search, a limit of FAISS
# fraction of free GPU memory for an index; the rest is for searches and growing lists
GPU_MEMORY_SHARE = 0.5
GPU_SCRATCH_BYTES = 256 * 2**20  # temporary memory per search
ROWS_PER_PART = 16_384  # in memory, vectors only
SEARCH_BLOCK_ROWS = 2048  # in memory, with candidates
MAX_FIT_ROWS = 4 * ROWS_PER_PART  # for k-means
MIN_ROWS_PER_CELL = 32  # for k-means
# candidates to re-rank, as a multiple of K: 8-bit codes cannot separate near-duplicates
CANDIDATES_PER_NEIGHBOUR = 8
TEST_QUERIES = 1000  # rows searched exactly, to choose the number of cells to probe
REQUIRED_RECALL = 0.95  # of the K nearest neighbours, without the row itself
# a search probes at most this share of the cells: beyond that exact search is about as fast
MAX_CELL_SHARE = 1 / 4
# cells that can always be probed, and the maximum if no recall is required
FREE_CELLS = 32
# rows scanned per cell, in average cell sizes: equal vectors all fall into one cell
MAX_CROWDING = 16
TIE = 1e-6  # tolerance for equal cosines
LOG = logging.getLogger(__name__)

Index = Literal["exact", "ivf"]


class SearchSettings(NamedTuple):
    """The chosen number of cells to probe, and the recall that it reaches."""

    cells: int = 0
    probes: int = 0  # cells per search
    # of the K nearest neighbours, measured on TEST_QUERIES rows, without the row itself
    recall: float = 1.0


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
    stdout = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)


def train_index(sample: np.ndarray, n: int, codes: str) -> Any:
    """Train an empty inverted file for n rows with 4 sqrt(n) k-means cells.

    `codes`: FAISS's encoding, such as SQ8.
    """
    cells = max(1, min(round(4 * n**0.5), len(sample) // MIN_ROWS_PER_CELL))
    width = sample.shape[1]
    index: Any = faiss.index_factory(width, f"IVF{cells},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.seed = 0
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = len(sample)
    with one_thread():  # a fixed order of sums makes centroids reproducible
        index.train(sample)
    return index


def choose_index(index: Literal["auto", "exact", "ivf"], n_items: int, exact_up_to: int) -> Index:
    if index != "auto":
        return index
    return "exact" if n_items <= exact_up_to else "ivf"


def find_neighbours(features: np.ndarray, k: int, index: Index = "exact") -> pa.Table:
    """Return the K nearest items by cosine of float32 [I, F], itself first, ties by item.

    The result is EDGES in item order. Rows that are zero or not finite are no item's neighbour and
    keep only themselves. Index `ivf` is approximate.
    """
    if index == "ivf":
        starts = range(0, len(features), SEARCH_BLOCK_ROWS)
        blocks = (features[start : start + SEARCH_BLOCK_ROWS] for start in starts)
        with TemporaryDirectory() as folder:
            tables, _, _ = search_inverted(blocks, features.shape[1], k, Path(folder))
            return pa.concat_tables(tables)

    units, directed = unit_rows(features)
    rows = np.flatnonzero(directed)
    cosines, columns = _search_exact(units[rows], min(k, len(rows)))
    return _edge_table(rows, cosines, rows[columns], np.flatnonzero(~directed))


class Inverted:
    """On-disk index of a catalogue, 5 bytes per vector component."""

    def __init__(self, blocks: Iterable[np.ndarray], width: int, folder: Path) -> None:
        """Index blocks of vectors, float32 [b, F], in order.

        `directed`, bool [N], marks rows with a direction.
        """
        path = folder / "units.f32"
        directed_of_blocks = []
        with path.open("wb") as file:
            for block in blocks:
                units, directed = unit_rows(block)
                file.write(units.data)
                directed_of_blocks.append(directed)
        self.directed = np.concatenate(directed_of_blocks)
        self._units = np.memmap(path, np.float32, "r").reshape(-1, width)

        rows = np.flatnonzero(self.directed)
        if len(rows):
            self.index = self._train(rows)
            self._add_rows(len(rows), folder)

    def _train(self, rows: np.ndarray) -> Any:
        drawn = np.random.default_rng(0).permutation(len(rows))[:MAX_FIT_ROWS]
        return train_index(self._units[rows[np.sort(drawn)]], len(rows), "SQ8")

    def _add_rows(self, n_rows: int, folder: Path) -> None:
        code_bytes = self.index.code_size
        # lists grow by doubling, and are moved
        io.require_space(folder, 4 * n_rows * (code_bytes + 8))
        path = str(folder / "lists")
        lists: Any = faiss.OnDiskInvertedLists(self.index.nlist, code_bytes, path)
        self.index.replace_invlists(lists, True)
        lists.this.disown()  # the index owns them
        with _silence_stdout():
            for rows in self.directed_rows():
                for start in range(0, len(rows), SEARCH_BLOCK_ROWS):
                    block = rows[start : start + SEARCH_BLOCK_ROWS]
                    self.index.add_with_ids(self._units[block], block)

    def directed_rows(self) -> Iterator[np.ndarray]:
        """Yield the numbers of rows with a direction, int64 [n], of each part."""
        for start in range(0, len(self.directed), ROWS_PER_PART):
            yield start + np.flatnonzero(self.directed[start : start + ROWS_PER_PART])

    def search(self, rows: np.ndarray, k: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return exact cosines and rows, [n, K], of the nearest rows in the probed cells.

        The row itself comes first; -1: none.
        """
        candidates_wanted = CANDIDATES_PER_NEIGHBOUR * k
        rows_per_cell = self.index.ntotal // self.index.nlist
        self.index.nprobe = probes
        self.index.max_codes = MAX_CROWDING * probes * max(candidates_wanted, rows_per_cell)

        ranked_cosines = [np.empty((0, k), np.float32)]
        ranked_ids = [np.empty((0, k), np.int64)]
        step = max(1, SEARCH_BLOCK_ROWS // CANDIDATES_PER_NEIGHBOUR // k)
        for start in range(0, len(rows), SEARCH_BLOCK_ROWS):
            block = rows[start : start + SEARCH_BLOCK_ROWS]
            _, ids = self.index.search(self._units[block], candidates_wanted)
            itself = block[:, None]
            candidates = np.concatenate([itself, np.where(ids == itself, -1, ids)], axis=1)
            for first in range(0, len(block), step):
                within = slice(first, first + step)
                cosines, nearest = self._rank(block[within], candidates[within], k)
                ranked_cosines.append(cosines)
                ranked_ids.append(nearest)
        return np.concatenate(ranked_cosines), np.concatenate(ranked_ids)

    def _rank(
        self, rows: np.ndarray, candidates: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the exact cosines and ids of the K best of candidates [n, C], the first first."""
        cosines = np.einsum("nf,ncf->nc", self._units[rows], self._units[candidates])
        score = np.where(candidates < 0, -np.inf, cosines)
        score[:, 0] = np.inf  # the row itself
        order = np.lexsort((candidates, -score), axis=1)[:, :k]
        return np.take_along_axis(cosines, order, 1), np.take_along_axis(candidates, order, 1)

    def choose_probes(self, k: int, required: bool = True) -> SearchSettings:
        """Increase the number of probes until REQUIRED_RECALL is reached.

        UserError if a quarter of the cells is too few.
        """
        cells = self.index.nlist
        rows = np.flatnonzero(self.directed)
        drawn = np.random.default_rng(1).permutation(len(rows))[:TEST_QUERIES]
        rows = rows[np.sort(drawn)]
        least = self._exact_cosines(rows, k)[:, -1:]

        most_probes = min(cells, FREE_CELLS)
        if required:
            most_probes = max(most_probes, int(cells * MAX_CELL_SHARE))
        probes = 1
        while True:
            cosines, ids = self.search(rows, k, probes)
            hits = (ids >= 0) & (cosines >= least - TIE)
            recall = float(hits[:, 1:].mean()) if k > 1 else 1.0
            if recall >= REQUIRED_RECALL or probes == most_probes:
                break
            probes = min(most_probes, probes + (probes + 1) // 2)

        if required and recall < REQUIRED_RECALL:
            raise UserError(
                f"an inverted file finds {recall:.3f} of the nearest neighbours in {probes:,} of "
                f"{cells:,} cells, less than {REQUIRED_RECALL}: these vectors form no groups; "
                "give 'graph.index: exact', which takes about as long"
            )
        return SearchSettings(cells, probes, round(recall, 4))

    def _exact_cosines(self, rows: np.ndarray, k: int) -> np.ndarray:
        """Return the K largest cosines to each row, itself included: float32 [n, K], descending."""
        queries = self._units[rows]
        best = np.full((len(rows), k), -np.inf, np.float32)
        for part in self.directed_rows():
            cosines, _ = faiss.knn(
                queries, self._units[part], min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT
            )
            candidates = np.concatenate([best, cosines], axis=1)
            best = np.sort(candidates, axis=1)[:, ::-1][:, :k]
        return best


def search_inverted(
    blocks: Iterable[np.ndarray], width: int, k: int, folder: Path, required: bool = True
) -> tuple[Iterator[pa.Table], np.ndarray, SearchSettings]:
    """Like `find_neighbours`, with an inverted file in `folder`.

    Returns EDGES in item order, the items with a direction, bool [I], and the settings. UserError
    if the `required` recall is not reached.
    """
    index = Inverted(blocks, width, folder)
    directed = index.directed
    if not directed.any():
        nothing = np.empty((0, 0), int)
        table = _edge_table(nothing.ravel(), nothing, nothing, np.arange(len(directed)))
        return iter([table]), directed, SearchSettings()

    k = min(k, int(directed.sum()))
    settings = index.choose_probes(k, required)

    def search_parts() -> Iterator[pa.Table]:
        starts = range(0, len(directed), ROWS_PER_PART)
        for start, rows in zip(starts, index.directed_rows(), strict=True):
            isolated = start + np.flatnonzero(~directed[start : start + ROWS_PER_PART])
            cosines, ids = index.search(rows, k, settings.probes)
            yield _edge_table(rows, cosines, ids, isolated)

    return search_parts(), directed, settings


def _edge_table(
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


def _search_exact(units: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and rows, [N, K], of the exact nearest of `units` [N, F], itself first."""
    n = len(units)
    cosines = np.empty((n, k), np.float32)
    ids = np.empty((n, k), np.int64)
    if not n:
        return cosines, ids

    flat = faiss.IndexFlatIP(units.shape[1])
    flat.add(units)
    index = _on_gpu(flat, n, k + 1)
    step, place = GPU_QUERIES, None
    if index is flat:
        step, place = CPU_QUERIES, engine.Threads()

    blocks = (np.arange(start, min(start + step, n)) for start in range(0, n, step))
    search = partial(_search_block, index, units, k)
    # each block is computed by a single thread: equal bytes for any number of threads
    with threadpool_limits(1):
        for block, nearest in engine.run_jobs(lambda: search, blocks, place):
            cosines[block], ids[block] = nearest
    return cosines, ids


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
    # only in package faiss-gpu-cu12
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
