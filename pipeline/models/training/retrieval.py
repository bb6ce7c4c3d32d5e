"""Top-K retrieval by a FAISS index on inner products. I items, D embedding width, N users, K cutoff."""

from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.split import Pairs, contains_keys, pair_keys, train_of
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models.training.embeddings import Embeddings, read_embeddings
from alignrec.pipeline.runtime.layout import Layout

MEASURED_AT = 20  # cutoff of the reported recall
SAMPLE = 1000  # users on which recall is measured
ENOUGH = 0.95  # recall required of an inverted file: determines the number of lists searched
BLOCK = 1024  # users per search


def write_index(layout: Layout, exact_up_to: int) -> None:
    user, item = read_embeddings(layout)
    asked = np.linspace(0, len(user) - 1, min(SAMPLE, len(user))).astype(np.int64)
    bought = io.read_slices(
        layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"], io.PART
    )
    seen = train_of(bought, asked, len(user), len(item))
    index, facts = build_index(item, user.take(asked), seen, exact_up_to)
    with io.atomic(layout.items_index) as temporary:
        faiss.write_index(index, str(temporary))
    io.write_json(layout.index_facts, facts)


def build_flat(item: np.ndarray) -> faiss.Index:
    index = faiss.IndexFlatIP(item.shape[1])
    index.add(np.ascontiguousarray(item, np.float32))
    return index


def build_index(
    item: Embeddings, user: np.ndarray, seen: Pairs, exact_up_to: int
) -> tuple[Any, dict[str, Any]]:
    """Build an index of item vectors, row = item_id, which is reproducible byte by byte.

    Its facts are kind, items, width, and recall at k against exact ranking on a sample of users; of `ivf` also lists.
    """
    k, places = min(MEASURED_AT, len(item)), np.arange(len(user))
    best = search_exact(user, item, k, seen)

    def found(index: faiss.Index) -> float:
        return index_recall(recommend_items(index, user, places, k, seen)[0], best)

    facts: dict[str, Any] = {"kind": "flat"}
    if len(item) <= exact_up_to:
        index = build_flat(item.read())
    else:
        rows = np.random.default_rng(0).choice(
            len(item), min(len(item), neighbours.SAMPLE), replace=False
        )
        index = neighbours.train_index(item.take(np.sort(rows)), len(item), "Flat")
        for part in item:
            index.add(part)
        # double the number of lists searched until recall reaches ENOUGH
        while found(index) < ENOUGH and index.nprobe < index.nlist:
            index.nprobe = min(2 * index.nprobe, index.nlist)
        facts = {"kind": "ivf", "lists": index.nlist, "searched": index.nprobe}
    facts |= {
        "items": len(item),
        "width": item.width,
        "recall": round(found(index), 4),
        "k": k,
        "users": len(user),
    }
    return index, facts


def search_exact(user: np.ndarray, item: Iterable[np.ndarray], k: int, seen: Pairs) -> np.ndarray:
    """Compute `evaluation.metrics.topk` over items in blocks, float32 [n, D]: int32 [N, K]."""
    from alignrec.pipeline.evaluation.metrics import (
        topk,
    )  # lazy: retrieval itself does not need torch

    ids, scores, first = np.empty((len(user), 0), np.int32), np.empty((len(user), 0)), 0
    for part in item:
        own = (seen.items >= first) & (seen.items < first + len(part))
        found = topk(user, part, min(k, len(part)), Pairs(seen.users[own], seen.items[own] - first))
        score = np.einsum("nd,nkd->nk", user, part[found], dtype=np.float64)
        ids = np.concatenate([ids, np.where(found < 0, -1, first + found)], axis=1)
        scores = np.concatenate([scores, np.where(found < 0, -np.inf, score)], axis=1)
        if first:
            order = np.lexsort((ids, -scores), axis=1)
            ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        ids, scores, first = ids[:, :k], scores[:, :k], first + len(part)
    return ids


def recommend_items(
    index: faiss.Index, user: np.ndarray, users: np.ndarray, k: int, seen: Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """Return the unseen items of highest dot product, int32 [N, K], and scores, best first, ties by item.

    Padded with -1 and -inf; UserError if K exceeds the catalogue.
    """
    n_items = index.ntotal
    if k > n_items:
        raise UserError(f"{k} items wanted, and the catalogue has {n_items}; ask for fewer")
    seen_keys, n_seen = (
        pair_keys(seen, n_items),
        np.bincount(seen.users, minlength=len(user))[users],
    )
    ids, scores = (
        np.full((len(users), k), -1, np.int32),
        np.full((len(users), k), -np.inf, np.float32),
    )
    order = np.argsort(n_seen, kind="stable")  # batch users with similar numbers of seen items
    for at in range(0, len(order), BLOCK):  # blocks bound the memory
        rows = order[at : at + BLOCK]
        fetched = min(k + int(n_seen[rows].max()), n_items)
        value, item = index.search(np.ascontiguousarray(user[users[rows]], np.float32), fetched)
        masked = contains_keys(seen_keys, users[rows, None].astype(np.int64) * n_items + item) | (
            item < 0
        )
        value = np.where(masked, -np.inf, value)
        best = np.lexsort((item, -value), axis=1)[:, :k]
        scores[rows] = np.take_along_axis(value, best, 1)
        ids[rows] = np.where(np.isneginf(scores[rows]), -1, np.take_along_axis(item, best, 1))
    return ids, scores


def index_recall(retrieved: np.ndarray, exact: np.ndarray) -> float:
    hits = (retrieved[:, :, None] == exact[:, None, :]).any(1) & (exact >= 0)
    return float(hits.sum() / max((exact >= 0).sum(), 1))
