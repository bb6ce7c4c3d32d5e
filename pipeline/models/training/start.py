"""Start training from the vectors of an earlier release instead of random ones.

U users, I items, D embedding width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
import torch
from torch import nn

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.split import Split, contains_keys, pair_keys
from alignrec.pipeline.models.adjacency import interaction_matrix
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.runtime.layout import Layout


class Start(NamedTuple):
    """What training takes from an earlier release."""

    manifest: str  # sha256 of its manifest.json
    items: pa.Table  # columns asin, vector
    users: pa.Table | None  # columns user, vector; None if users have no names there
    pairs: pa.Table | None  # columns user, asin: what it was trained on, if users have names there


class StartVectors(NamedTuple):
    """Vectors of today's users and items, float32 [U, D] and [I, D]; rows without one are NaN."""

    user: np.ndarray
    item: np.ndarray
    facts: dict[str, int]

    def initialise(self, network: AlignRec) -> None:
        """Set the ID embeddings; rows without a vector keep their random ones."""
        for table, vectors in ((network.user, self.user), (network.item, self.item)):
            _set_rows(table, vectors)


@torch.no_grad()
def _set_rows(table: nn.Parameter, vectors: np.ndarray) -> None:
    rows = np.flatnonzero(np.isfinite(vectors).all(1))
    table[torch.from_numpy(rows)] = torch.from_numpy(vectors[rows]).to(table.device)


def match_start(start: Start, layout: Layout, split: Split, edges: pa.Table) -> StartVectors:
    """Find or derive a vector of each user and item.

    Known items and users have those of the release, a new item the mean of its known neighbours
    in the graph (schema EDGES), and another user the mean of the items bought in train.
    """
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS, ["asin"])["asin"]
    item = _take_known(asins, start.items["asin"], start.items["vector"])
    known_items = _has_vector(item)
    item = _fill_rows(item, _neighbour_matrix(edges, len(item)))

    users = io.read_table(layout.users, schemas.USERS, ["user"])["user"]
    user = np.full((len(users), item.shape[1]), np.nan, np.float32)
    if start.users is not None:
        user = _take_known(users, start.users["user"], start.users["vector"])
    known_users = _has_vector(user)
    user = _fill_rows(user, interaction_matrix(split), item)

    facts = {
        "items": int(known_items.sum()),
        "items_by_neighbours": int((_has_vector(item) & ~known_items).sum()),
        "users": int(known_users.sum()),
        "users_by_items": int((_has_vector(user) & ~known_users).sum()),
    }
    if start.pairs is not None:
        facts["held_out"] = _count_held_out(start.pairs, users, asins, split)
    return StartVectors(user, item, facts)


def _take_known(
    names: pa.ChunkedArray, known: pa.ChunkedArray, vectors: pa.ChunkedArray
) -> np.ndarray:
    """Return the vectors of names, float32 [n, D]; NaN for unknown ones."""
    rows = pc.index_in(names, known).fill_null(-1).to_numpy()
    matrix = io.matrix(vectors)
    taken = np.full((len(names), matrix.shape[1]), np.nan, np.float32)
    taken[rows >= 0] = matrix[rows[rows >= 0]]
    return taken


def _has_vector(vectors: np.ndarray) -> np.ndarray:
    return np.isfinite(vectors).all(1)


def _neighbour_matrix(edges: pa.Table, n_items: int) -> sp.csr_array:
    ends = [edges[name].to_numpy() for name in ("item_id", "neighbour_id")]
    return sp.csr_array((np.ones(len(edges), np.float32), tuple(ends)), (n_items, n_items))


def _fill_rows(
    vectors: np.ndarray, graph: sp.csr_array, others: np.ndarray | None = None
) -> np.ndarray:
    """Fill rows [N, D] that are NaN with the mean of others [M, D] that a graph [N, M] links.

    `others` are by default the vectors themselves. Rows without a link to a vector stay NaN.
    """
    sources = vectors if others is None else others
    has_vector = _has_vector(sources)
    lacking = np.flatnonzero(~_has_vector(vectors))
    links = graph[lacking][:, has_vector]  # [n, m]

    n_links = np.asarray(links.sum(1)).ravel()
    linked = n_links > 0
    filled = vectors.copy()
    sums = links[linked] @ sources[has_vector]
    filled[lacking[linked]] = sums / n_links[linked, None]
    return filled


def _count_held_out(
    pairs: pa.Table, users: pa.ChunkedArray, asins: pa.ChunkedArray, split: Split
) -> int:
    """Count the valid and test pairs that the release was trained on."""
    user = pc.index_in(pairs["user"], users).fill_null(-1).to_numpy()
    item = pc.index_in(pairs["asin"], asins).fill_null(-1).to_numpy()
    is_here = (user >= 0) & (item >= 0)
    keys = np.unique(user[is_here].astype(np.int64) * split.n_items + item[is_here])
    held_out = np.concatenate(
        [pair_keys(part, split.n_items) for part in (split.valid, split.test)]
    )
    return int(contains_keys(keys, held_out).sum())
