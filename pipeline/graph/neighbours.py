"""The K nearest neighbours of each item by cosine, searched with FAISS.

Letters: I items, N rows, F width, K neighbours.
"""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np
import pyarrow as pa
import torch

from pipeline.graph import approximate, gpu
from pipeline.graph.params import Graph
from pipeline.ops.rows import unit_rows
from pipeline.ops.topk import select

BLOCK = 1024
"""queries a search: bounds memory to BLOCK x I scores at worst"""


Index = Literal["exact", "ivf", "hnsw"]


def choose(index: Literal["auto", "exact", "ivf", "hnsw"], n_items: int, exact_up_to: int) -> Index:
    """Return which index to search: of `auto` the exact one up to a size, and an inverted file above it."""
    if index != "auto":
        return index
    return "exact" if n_items <= exact_up_to else "ivf"


def of_params(features: np.ndarray, params: Graph) -> pa.Table:
    """Do as `neighbours`, with the K and the index of section `graph`."""
    return neighbours(features, params.k, choose(params.index, len(features), params.exact_up_to))


def neighbours(features: np.ndarray, k: int, index: Index = "exact", use_gpu: bool = True) -> pa.Table:
    """Return each item's K nearest by cosine, itself first.

    Rows that are zero or not finite have no direction: they are nobody's neighbour and keep only themselves.
    With fewer than K usable items, each gets that many.

    Args:
        features: float32 [I, F].
        k: neighbours an item, itself included.
        index: exact compares all pairs; the others miss some neighbours, see `recall`.
        use_gpu: whether GPUs are used, where there are any: the neighbours are the same, cosines to rounding.

    Returns:
        schema EDGES, by item_id, then rank; equal cosines in ascending item order.
    """
    units, usable = unit_rows(features)
    usable_rows = np.flatnonzero(usable)
    k = min(k, len(usable_rows))
    if index == "exact" or not k:
        cosines, columns = _search(units[usable_rows], k, use_gpu)
    else:
        cosines, columns = approximate.search(units[usable_rows], k, index, use_gpu)
    rows, ranks = np.nonzero(columns >= 0)  # an approximate index may find fewer
    unusable_rows = np.flatnonzero(~usable)
    item = np.concatenate([usable_rows[rows], unusable_rows])
    table = {
        "item_id": item,
        "neighbour_id": np.concatenate([usable_rows[columns[rows, ranks]], unusable_rows]),
        "rank": np.concatenate([ranks, np.zeros(len(unusable_rows), int)]),
        "cosine": np.concatenate([cosines[rows, ranks], np.ones(len(unusable_rows), np.float32)]),
    }
    order = np.argsort(item, kind="stable")
    types = {"cosine": np.float32}
    return pa.table({name: column[order].astype(types.get(name, np.int32)) for name, column in table.items()})


def recall(features: np.ndarray, edges: pa.Table, sample: int) -> float:
    """Return the share of the exact neighbours, without the item itself, that `edges` has, on a sample of items.

    Args:
        features: float32 [I, F].
        edges: schema EDGES, searched on these features.
        sample: items that are searched exactly.
    """
    units, usable = unit_rows(features)
    usable_rows = np.flatnonzero(usable)
    ids = np.full((len(features), int(edges["rank"].to_numpy().max(initial=0)) + 1), -1)
    ids[edges["item_id"].to_numpy(), edges["rank"].to_numpy()] = edges["neighbour_id"].to_numpy()
    position = np.full(len(features) + 1, -1)
    position[usable_rows] = np.arange(len(usable_rows))
    return approximate.recall(units[usable_rows], position[ids[usable_rows]], sample)


def _search(units: np.ndarray, k: int, use_gpu: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines [N, K] and rows [N, K] of the exact nearest rows of `units` [N, F], the row itself first."""
    n = len(units)
    cosines, ids = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    if not n:
        return cosines, ids
    flat = faiss.IndexFlatIP(units.shape[1])
    flat.add(units)
    index = gpu.placed(flat, n, k + 1) if use_gpu else flat
    for at in range(0, n, BLOCK):  # blocks bound the memory
        own = np.arange(at, min(at + BLOCK, n))
        near_cosines, near_ids = index.search(units[own], min(k + 1, n))
        untied = (near_ids[:, :k] == own[:, None]).any(1)  # has itself, and no tie crosses position K
        if near_cosines.shape[1] > k:
            untied &= near_cosines[:, k - 1] > near_cosines[:, k]
            near_cosines, near_ids = near_cosines[:, :k], near_ids[:, :k]
        tied = own[~untied]
        if len(tied):
            near_cosines[~untied], near_ids[~untied] = _exact(units, tied, k)
        cosines[own], ids[own] = _self_first(near_cosines, near_ids, own)
    return cosines, ids


def _exact(units: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for rows with ties; which equal neighbours FAISS keeps is undefined."""
    scores = torch.from_numpy(units[rows] @ units.T)
    own = torch.from_numpy(rows)[:, None]
    cosine = scores.gather(1, own)
    values, ids = select(scores.scatter(1, own, torch.inf), k)
    values[:, :1] = cosine
    return values.numpy(), ids.numpy()


def _self_first(cosines: np.ndarray, ids: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keys = np.where(ids == own[:, None], np.inf, cosines)
    order = np.lexsort((ids, -keys), axis=1)
    return np.take_along_axis(cosines, order, 1), np.take_along_axis(ids, order, 1)
