"""K nearest neighbours of items by cosine with FAISS: exact, or approximate by an inverted file on disk.

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
GPU_ROWS, CPU_ROWS = 1024, 256
MOST_NEIGHBOURS = 2048  # maximum neighbours per search on a GPU, a limit of FAISS
SHARE = 0.5  # fraction of free GPU memory for an index; the rest is for searches and growing lists
SCRATCH = 256 * 2**20  # bytes of temporary GPU memory per search
# rows in memory: vectors only, and with candidates
PART, BLOCK = 16_384, 2048
SAMPLE, POINTS = 4 * PART, 32  # rows for k-means; minimum per cell
CANDIDATES = (
    8  # candidates to re-rank, as a multiple of K: 8-bit codes cannot separate near-duplicates
)
QUERIES = 1000  # rows searched exactly, to choose the number of cells to probe
RECALL = 0.95  # required recall of the K nearest neighbours, without the row itself
MOST = (
    4  # at most 1/MOST of the cells, or FEW, are probed: beyond that exact search is about as fast
)
FEW = 32  # cells that can always be probed, and the maximum if no recall is required
CROWDED = (
    16  # maximum rows scanned per cell, in average cell sizes: equal vectors all fall into one cell
)
TIE = 1e-6  # tolerance for equal cosines
LOG = logging.getLogger(__name__)

Index = Literal["exact", "ivf"]


class SearchSettings(NamedTuple):
    """The chosen number of cells to probe, and the recall that it reaches."""

    cells: int = 0
    probes: int = 0  # cells per search
    recall: float = (
        1.0  # recall of the K nearest neighbours, measured on QUERIES rows, without the row itself
    )


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
    """Train an empty inverted file for n rows with 4 sqrt(n) k-means cells.

    `codes`: FAISS's encoding, such as SQ8.
    """
    cells = max(1, min(round(4 * n**0.5), len(sample) // POINTS))
    index: Any = faiss.index_factory(
        sample.shape[1], f"IVF{cells},{codes}", faiss.METRIC_INNER_PRODUCT
    )
    index.cp.spherical, index.cp.seed = True, 0
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, len(sample)
    with one_thread():  # a fixed order of sums makes centroids reproducible
        index.train(sample)
    return index


def choose_index(index: Literal["auto", "exact", "ivf"], n_items: int, exact_up_to: int) -> Index:
    if index != "auto":
        return index
    return "exact" if n_items <= exact_up_to else "ivf"


def find_neighbours(features: np.ndarray, k: int, index: Index = "exact") -> pa.Table:
    """Return the K nearest items by cosine of float32 [I, F], itself first, ties by item: EDGES in item order.

    Rows that are zero or not finite are no item's neighbour and keep only themselves. Index `ivf` is approximate.
    """
    if index == "ivf":
        parts = (features[at : at + BLOCK] for at in range(0, len(features), BLOCK))
        with TemporaryDirectory() as folder:
            return pa.concat_tables(search_inverted(parts, features.shape[1], k, Path(folder))[0])
    units, usable = unit_rows(features)
    rows, k = np.flatnonzero(usable), min(k, int(usable.sum()))
    cosines, columns = _search_exact(units[rows], k)
    return _edge_table(rows, cosines, rows[columns], np.flatnonzero(~usable))


class Inverted:
    """On-disk index of a catalogue, 5 bytes per vector component."""

    def __init__(self, parts: Iterable[np.ndarray], width: int, folder: Path) -> None:
        """Index float32 [b, F] blocks in order.

        `directed`, bool [N], marks rows with a direction.
        """
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
        io.require_space(
            folder, 4 * len(rows) * (self.index.code_size + 8)
        )  # lists grow by doubling, and are moved
        lists: Any = faiss.OnDiskInvertedLists(
            self.index.nlist, self.index.code_size, str(folder / "lists")
        )
        self.index.replace_invlists(lists, True)
        lists.this.disown()  # the index owns them
        with _silence_stdout():
            for own in self.directed_rows():
                for at in range(0, len(own), BLOCK):
                    self.index.add_with_ids(self._units[own[at : at + BLOCK]], own[at : at + BLOCK])

    def directed_rows(self) -> Iterator[np.ndarray]:
        """Yield the numbers of rows with a direction, int64 [n], from each PART rows."""
        return (
            at + np.flatnonzero(self.directed[at : at + PART])
            for at in range(0, len(self.directed), PART)
        )

    def search(self, rows: np.ndarray, k: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return exact cosines and rows, [n, K], of the nearest rows in the probed cells, itself
        first; -1: none.
        """
        self.index.nprobe = probes
        self.index.max_codes = (
            CROWDED * probes * max(CANDIDATES * k, self.index.ntotal // self.index.nlist)
        )
        ranked = [(np.empty((0, k), np.float32), np.empty((0, k), np.int64))]
        step = max(1, BLOCK // CANDIDATES // k)  # rows per re-ranking step
        for at in range(0, len(rows), BLOCK):
            own = rows[at : at + BLOCK]
            _, found = self.index.search(self._units[own], CANDIDATES * k)
            found = np.concatenate(
                [own[:, None], np.where(found == own[:, None], -1, found)], axis=1
            )
            for to in range(0, len(own), step):
                ids = found[to : to + step]
                cosines = np.einsum(
                    "nf,ncf->nc", self._units[own[to : to + step]], self._units[ids]
                )
                rank = np.where(ids < 0, -np.inf, cosines)
                rank[:, 0] = np.inf  # the first candidate is the row itself
                order = np.lexsort((ids, -rank), axis=1)[:, :k]
                ranked.append(
                    (np.take_along_axis(cosines, order, 1), np.take_along_axis(ids, order, 1))
                )
        cosines, ids = map(np.concatenate, zip(*ranked, strict=True))
        return cosines, ids

    def choose_probes(self, k: int, required: bool = True) -> SearchSettings:
        """Increase the number of probes until RECALL is reached.

        UserError if a quarter of the cells is too few.
        """
        usable, cells = np.flatnonzero(self.directed), self.index.nlist
        rows = usable[np.sort(np.random.default_rng(1).permutation(len(usable))[:QUERIES])]
        # the exact cosine of each row's Kth neighbour, itself included
        queries, best = self._units[rows], np.full((len(rows), k), -np.inf, np.float32)
        for own in self.directed_rows():
            exact, _ = faiss.knn(
                queries, self._units[own], min(k, len(own)), metric=faiss.METRIC_INNER_PRODUCT
            )
            best = np.sort(np.concatenate([best, exact], axis=1), axis=1)[:, ::-1][:, :k]
        probes, most = 1, max(min(cells, FEW), cells // MOST * required)
        while True:
            cosines, ids = self.search(rows, k, probes)
            hits = (ids >= 0) & (cosines >= best[:, -1:] - TIE)
            recall = float(hits[:, 1:].mean()) if k > 1 else 1.0
            if recall >= RECALL or probes == most:
                break
            probes = min(most, probes + (probes + 1) // 2)
        if required and recall < RECALL:
            raise UserError(
                f"an inverted file finds {recall:.3f} of the nearest neighbours in {probes:,} of {cells:,} cells, less "
                f"than {RECALL}: these vectors form no groups; give 'graph.index: exact', which takes about as long"
            )
        return SearchSettings(cells, probes, round(recall, 4))


def search_inverted(
    parts: Iterable[np.ndarray], width: int, k: int, folder: Path, required: bool = True
) -> tuple[Iterator[pa.Table], np.ndarray, SearchSettings]:
    """Like `find_neighbours`, with an inverted file in `folder`; UserError if the `required` recall is not reached.

    Returns EDGES in item order, the items with a direction, bool [I], and the settings.
    """
    index = Inverted(parts, width, folder)
    usable = index.directed
    if not usable.any():
        none = np.empty((0, 0), int)
        return (
            iter([_edge_table(none.ravel(), none, none, np.arange(len(usable)))]),
            usable,
            SearchSettings(),
        )
    k = min(k, int(usable.sum()))
    settled = index.choose_probes(k, required)

    def tables() -> Iterator[pa.Table]:
        for start, rows in zip(range(0, len(usable), PART), index.directed_rows(), strict=True):
            lone = start + np.flatnonzero(~usable[start : start + PART])
            yield _edge_table(rows, *index.search(rows, k, settled.probes), lone)

    return tables(), usable, settled


def _edge_table(
    items: np.ndarray, cosines: np.ndarray, ids: np.ndarray, lone: np.ndarray
) -> pa.Table:
    """Return EDGES, sorted, from items [N], cosines and ids [N, K], with -1 for none, and isolated
    items [M].
    """
    rows, ranks = np.nonzero(ids >= 0)
    item = np.concatenate([items[rows], lone])
    table = {
        "item_id": item,
        "neighbour_id": np.concatenate([ids[rows, ranks], lone]),
        "rank": np.concatenate([ranks, np.zeros(len(lone), int)]),
        "cosine": np.concatenate([cosines[rows, ranks], np.ones(len(lone), np.float32)]),
    }
    order = np.argsort(item, kind="stable")
    types = {"cosine": np.float32}
    return pa.table(
        {name: column[order].astype(types.get(name, np.int32)) for name, column in table.items()}
    )


def _search_exact(units: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and rows, [N, K], of the exact nearest rows of `units` [N, F], the row itself
    first.
    """
    n = len(units)
    cosines, ids = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    if not n:
        return cosines, ids
    flat = faiss.IndexFlatIP(units.shape[1])
    flat.add(units)
    index = _on_gpu(flat, n, k + 1)
    step, place = (CPU_ROWS, engine.Threads()) if index is flat else (GPU_ROWS, None)
    blocks = (np.arange(at, min(at + step, n)) for at in range(0, n, step))
    search = partial(_search_block, index, units, k)
    # each block is computed by a single thread: equal bytes for any number of threads
    with threadpool_limits(1):
        for own, found in engine.run_jobs(lambda: search, blocks, place):
            cosines[own], ids[own] = found
    return cosines, ids


def _search_block(
    index: faiss.Index, units: np.ndarray, k: int, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    with one_thread():  # OpenMP's setting is per thread
        cosines, ids = index.search(units[own], min(k + 1, len(units)))
    untied = (ids[:, :k] == own[:, None]).any(1)  # has itself among K, and no tie at K
    if cosines.shape[1] > k:
        untied &= cosines[:, k - 1] > cosines[:, k]
        cosines, ids = cosines[:, :k], ids[:, :k]
    tied = own[~untied]
    if len(tied):
        # search again, as FAISS does not define which of several equal neighbours it returns
        scores, column = torch.from_numpy(units[tied] @ units.T), torch.from_numpy(tied)[:, None]
        values, found = select_top_k(scores.scatter(1, column, torch.inf), k)
        values[:, :1] = scores.gather(1, column)
        cosines[~untied], ids[~untied] = values.numpy(), found.numpy()
    keys = np.where(ids == own[:, None], np.inf, cosines)  # the row itself first
    order = np.lexsort((ids, -keys), axis=1)
    return np.take_along_axis(cosines, order, 1), np.take_along_axis(ids, order, 1)


def has_gpu() -> bool:
    # only in package faiss-gpu-cu12
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _on_gpu(index: faiss.Index, rows: int, k: int) -> faiss.Index:
    """Copy an IndexFlat to the first GPU.

    Return it unchanged without a GPU or if it does not fit.
    """
    if not has_gpu():
        return index
    needed = rows * (4 * index.d + 8)
    if needed + SCRATCH > SHARE * torch.cuda.mem_get_info(0)[0]:
        LOG.warning(
            "an index of %.1f GiB is too large for the GPU's free memory; it stays on the CPU",
            needed / 2**30,
        )
        return index
    if k > MOST_NEIGHBOURS:
        LOG.warning(
            "a GPU returns %d neighbours at most; the index stays on the CPU", MOST_NEIGHBOURS
        )
        return index
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH)
    return faiss.index_cpu_to_gpu(resources, 0, index)
