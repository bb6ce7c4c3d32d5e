"""Who is near whom: FAISS neighbours of items, and both graphs normalised.

Letters: U users, I items, F width, K neighbours.
"""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np
import pyarrow as pa
import torch

from pipeline.graph import approximate
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


def neighbours(features: np.ndarray, k: int, index: Index = "exact") -> pa.Table:
    """Return each item's K nearest by cosine, itself first.

    Rows that are zero or not finite have no direction: they are nobody's neighbour and keep only themselves. A
    catalogue with fewer than K usable items gives that many.

    Args:
        features: float32 [I, F].
        k: neighbours an item, itself included.
        index: exact compares all pairs; the others miss some neighbours, see `recall`.

    Returns:
        schema EDGES, by item_id, then rank; equal cosines in ascending item order.
    """
    units, usable = unit_rows(features)
    good = np.flatnonzero(usable)
    k = min(k, len(good))
    if index == "exact" or not k:
        cosines, near = _search(units[good], k)
    else:
        cosines, near = approximate.search(units[good], k, index)
    rows, ranks = np.nonzero(near >= 0)  # an approximate index may find fewer
    lonely = np.flatnonzero(~usable)
    item = np.concatenate([good[rows], lonely])
    table = {
        "item_id": item,
        "neighbour_id": np.concatenate([good[near[rows, ranks]], lonely]),
        "rank": np.concatenate([ranks, np.zeros(len(lonely), int)]),
        "cosine": np.concatenate([cosines[rows, ranks], np.ones(len(lonely), np.float32)]),
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
    good = np.flatnonzero(usable)
    ids = np.full((len(features), int(edges["rank"].to_numpy().max(initial=0)) + 1), -1)
    ids[edges["item_id"].to_numpy(), edges["rank"].to_numpy()] = edges["neighbour_id"].to_numpy()
    place = np.full(len(features) + 1, -1)
    place[good] = np.arange(len(good))
    return approximate.recall(units[good], place[ids[good]], sample)


def _search(units: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines [N, K] and rows [N, K] of the exact nearest rows of `units` [N, F], the row itself first."""
    n = len(units)
    cosines, ids = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    if not n:
        return cosines, ids
    index = faiss.IndexFlatIP(units.shape[1])
    index.add(units)
    for at in range(0, n, BLOCK):  # blocks bound the memory
        own = np.arange(at, min(at + BLOCK, n))
        near, who = index.search(units[own], min(k + 1, n))
        clear = (who[:, :k] == own[:, None]).any(1)  # found itself, and no tie reaches over the edge
        if near.shape[1] > k:
            clear &= near[:, k - 1] > near[:, k]
            near, who = near[:, :k], who[:, :k]
        torn = own[~clear]
        if len(torn):
            near[~clear], who[~clear] = _exact(units, torn, k)
        cosines[own], ids[own] = _self_first(near, who, own)
    return cosines, ids


def _exact(units: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for rows with ties, where FAISS leaves open which of the equal ones it keeps."""
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
