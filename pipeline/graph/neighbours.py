"""K nearest neighbours of items by cosine with FAISS. I items, N rows, F feature width, K neighbours."""

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from alignrec.pipeline import io
from alignrec.pipeline.graph import approximate
from alignrec.pipeline.graph.approximate import Settled
from alignrec.pipeline.graph.params import Graph
from alignrec.pipeline.harness import engine
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.ops.linalg import unit_rows
from alignrec.pipeline.ops.scores import select_top_k
from alignrec.schemas import EDGES

# queries per search on a GPU, and per CPU thread; bounds memory to that times I scores
BLOCK, PART = 1024, 256
MOST_NEIGHBOURS = 2048  # per search on a GPU: a limit of FAISS
SHARE = 0.5  # of free GPU memory for an index; the rest is for searches and growing lists
SCRATCH = 256 * 2**20  # bytes of temporary GPU memory per search
LOG = logging.getLogger(__name__)

Index = Literal["exact", "ivf"]
# control without clusters and meaningful neighbours, exempt from the required recall
MEANINGLESS = "random"


def choose_index(index: Literal["auto", "exact", "ivf"], n_items: int, exact_up_to: int) -> Index:
    if index != "auto":
        return index
    return "exact" if n_items <= exact_up_to else "ivf"


def neighbours_by_params(features: np.ndarray, params: Graph) -> pa.Table:
    return find_neighbours(features, params.k, choose_index(params.index, len(features), params.exact_up_to))


def find_neighbours(features: np.ndarray, k: int, index: Index = "exact") -> pa.Table:
    """Return the K nearest items by cosine of float32 [I, F], itself first, ties by item: EDGES in item order.

    Rows that are zero or not finite are no item's neighbour and keep only themselves. Index `ivf` is approximate.
    """
    if index == "ivf":
        parts = (features[at : at + approximate.BLOCK] for at in range(0, len(features), approximate.BLOCK))
        with TemporaryDirectory() as folder:
            return pa.concat_tables(search_inverted(parts, features.shape[1], k, Path(folder)).tables)
    units, usable = unit_rows(features)
    rows, k = np.flatnonzero(usable), min(k, int(usable.sum()))
    cosines, columns = _search_exact(units[rows], k)
    return _edge_table(rows, cosines, rows[columns], np.flatnonzero(~usable))


class Approximate(NamedTuple):
    """Result of `search_inverted`."""

    tables: Iterator[pa.Table]  # schema EDGES, in item order
    usable: np.ndarray  # bool [I], items with a direction
    settled: Settled


def search_inverted(
    parts: Iterable[np.ndarray], width: int, k: int, folder: Path, required: bool = True
) -> Approximate:
    """As `find_neighbours`, by an inverted file in `folder`; UserError if `required` recall is missed."""
    index = approximate.Inverted(parts, width, folder)
    usable = index.directed
    if not usable.any():
        none = np.empty((0, 0), int)
        return Approximate(iter([_edge_table(none.ravel(), none, none, np.arange(len(usable)))]), usable, Settled())
    k = min(k, int(usable.sum()))
    settled = index.settle(k, required)

    def tables() -> Iterator[pa.Table]:
        for start, rows in zip(range(0, len(usable), approximate.PART), index.parts(), strict=True):
            lone = start + np.flatnonzero(~usable[start : start + approximate.PART])
            yield _edge_table(rows, *index.search(rows, k, settled.probes), lone)

    return Approximate(tables(), usable, settled)


def _edge_table(items: np.ndarray, cosines: np.ndarray, ids: np.ndarray, lone: np.ndarray) -> pa.Table:
    """Return EDGES, sorted, from items [N], cosines and ids [N, K], with -1 for none, and isolated items [M]."""
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
    return pa.table({name: column[order].astype(types.get(name, np.int32)) for name, column in table.items()})


def _search_exact(units: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and rows, [N, K], of the exact nearest rows of `units` [N, F], the row itself first."""
    n = len(units)
    cosines, ids = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    if not n:
        return cosines, ids
    flat = faiss.IndexFlatIP(units.shape[1])
    flat.add(units)
    index = _on_gpu(flat, n, k + 1)
    step, place = (PART, engine.Threads()) if index is flat else (BLOCK, None)
    blocks, search = (
        (np.arange(at, min(at + step, n)) for at in range(0, n, step)),
        partial(_search_block, index, units, k),
    )
    # each block is computed by a single thread: equal bytes for any number of threads
    with threadpool_limits(1):
        for own, found in engine.map(lambda: search, blocks, place):
            cosines[own], ids[own] = found
    return cosines, ids


def _search_block(index: faiss.Index, units: np.ndarray, k: int, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with approximate.one_thread():  # OpenMP's setting is per thread
        cosines, ids = index.search(units[own], min(k + 1, len(units)))
    untied = (ids[:, :k] == own[:, None]).any(1)  # contains the row itself, and no tie at position K
    if cosines.shape[1] > k:
        untied &= cosines[:, k - 1] > cosines[:, k]
        cosines, ids = cosines[:, :k], ids[:, :k]
    tied = own[~untied]
    if len(tied):
        cosines[~untied], ids[~untied] = _rank_ties(units, tied, k)
    keys = np.where(ids == own[:, None], np.inf, cosines)  # the row itself first
    order = np.lexsort((ids, -keys), axis=1)
    return np.take_along_axis(cosines, order, 1), np.take_along_axis(ids, order, 1)


def _rank_ties(units: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Search rows with ties again, as FAISS does not define which of equal neighbours it returns."""
    scores = torch.from_numpy(units[rows] @ units.T)
    own = torch.from_numpy(rows)[:, None]
    cosine = scores.gather(1, own)
    values, ids = select_top_k(scores.scatter(1, own, torch.inf), k)
    values[:, :1] = cosine
    return values.numpy(), ids.numpy()


def has_gpu() -> bool:
    # only in package faiss-gpu-cu12
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _on_gpu(index: faiss.Index, rows: int, k: int) -> faiss.Index:
    """Copy an IndexFlat to the first GPU; return it unchanged without a GPU or if it does not fit."""
    if not has_gpu():
        return index
    needed = rows * (4 * index.d + 8)
    if needed + SCRATCH > SHARE * torch.cuda.mem_get_info(0)[0]:
        LOG.warning("an index of %.1f GiB is too large for the GPU's free memory; it stays on the CPU", needed / 2**30)
        return index
    if k > MOST_NEIGHBOURS:
        LOG.warning("a GPU returns %d neighbours at most; the index stays on the CPU", MOST_NEIGHBOURS)
        return index
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH)
    return faiss.index_cpu_to_gpu(resources, 0, index)


def write_edges(run: Run, name: str) -> None:
    params, path, folder = run.params[Graph], run.layout.edges(name), run.layout.features(name)
    items = io.rows(io.shards(folder, "features"))
    if choose_index(params.index, items, params.exact_up_to) == "exact":
        vectors = io.matrix(io.read_features(folder)["vector"])
        usable = unit_rows(vectors)[1]
        run.write(find_neighbours(vectors, params.k), path, EDGES)
    else:
        with io.scratch(path.with_name(".index")) as work:
            parts = io.read_vectors(folder, approximate.BLOCK)
            try:
                found = search_inverted(parts, io.width(folder), params.k, work, required=name != MEANINGLESS)
            except (UserError, RuntimeError) as e:  # FAISS raises RuntimeError where the disk is full
                raise UserError(f"{folder}: {one_line(e)}") from None
            run.write_all(found.tables, path, EDGES)
        usable = found.usable
        run.note(**{name: {"index": "ivf"} | found.settled._asdict()})
    run.count(f"{name}: item without direction", items - int(usable.sum()))
    run.rows_in += items
    run.rows_out += io.rows([path])
