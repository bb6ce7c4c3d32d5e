"""Approximate nearest neighbours, by an inverted file or an HNSW graph. Letters: N rows, F width, K neighbours.

Both indexes are deterministic: see `cells_of`. The HNSW graph is built by one thread, as its links depend on
the order of insertion.
"""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np

from pipeline.graph import gpu
from pipeline.graph.ivf import cells_of, one_thread

BLOCK = 1024
"""queries a search"""
PROBES = 32
"""cells of an inverted file that a query looks into"""
LINKS, BREADTH = 32, 128
"""HNSW: neighbours a node keeps; candidates held while building and searching"""


def search(
    units: np.ndarray, k: int, kind: Literal["ivf", "hnsw"], use_gpu: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines [N, K], descending, and rows [N, K] of approximate neighbours in `units`, the row itself first.

    Args:
        units: float32 [N, F], rows of length 1.
        k: K, at most N.
        kind: ivf: an inverted file; hnsw: a navigable small-world graph, for which FAISS has no GPU code.
        use_gpu: whether GPUs are used, where there are any.

    Returns:
        float32 and int64; -1 fills up a row for which the index returns fewer than K.
    """
    index = _ivf(units, k, use_gpu) if kind == "ivf" else _hnsw(units)
    cosines, ids = np.empty((len(units), k), np.float32), np.empty((len(units), k), np.int64)
    for at in range(0, len(units), BLOCK):  # blocks bound the memory
        own = np.arange(at, min(at + BLOCK, len(units)))
        near_cosines, near_ids = index.search(units[own], k)
        own_cosine = np.einsum("nf,nf->n", units[own], units[own])
        cosines[own], ids[own] = _self_first(near_cosines, near_ids, own, own_cosine)
    return cosines, ids


def recall(units: np.ndarray, ids: np.ndarray, sample: int) -> float:
    """Return the share of the exact K - 1 nearest others that `ids` holds, on a fixed random sample of rows.

    Args:
        units: float32 [N, F], rows of length 1.
        ids: int64 [N, K], the neighbours of the index, the row itself first.
        sample: rows that are searched exactly.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(units))[:sample])
    flat = faiss.IndexFlatIP(units.shape[1])
    flat.add(units)
    _, exact = gpu.placed(flat, len(units), ids.shape[1]).search(units[rows], ids.shape[1])
    hits = total = 0
    for row, truth in zip(rows.tolist(), exact, strict=True):  # a sample's worth of small sets
        others = set(truth.tolist()) - {row}
        hits += len(others & set(ids[row].tolist()))
        total += len(others)
    return hits / total if total else 1.0


def _ivf(units: np.ndarray, k: int, use_gpu: bool) -> faiss.Index:
    cells = cells_of(units)
    cells.nprobe = min(PROBES, cells.nlist)
    index = gpu.placed(cells, len(units), k) if use_gpu else cells
    index.add(units)
    return index


def _hnsw(units: np.ndarray) -> faiss.Index:
    index = faiss.IndexHNSWFlat(units.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = BREADTH
    with one_thread():
        index.add(units)
    return index


def _self_first(
    cosines: np.ndarray, ids: np.ndarray, own: np.ndarray, own_cosine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put each row itself first, in place of the last where the index missed it; equal others by ascending row."""
    missed = ~(ids == own[:, None]).any(1)
    ids[missed, -1], cosines[missed, -1] = own[missed], own_cosine[missed]
    rank = np.where(ids == own[:, None], np.inf, np.where(ids < 0, -np.inf, cosines))
    order = np.lexsort((ids, -rank), axis=1)
    return np.take_along_axis(cosines, order, 1), np.take_along_axis(ids, order, 1)
