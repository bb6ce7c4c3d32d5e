"""Top-K retrieval from a recommender's vectors: a FAISS index by inner product, exact while the catalogue is small.

Letters: I items, D width, N users, K cutoff.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.graph import approximate
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.interactions.split import Pairs, contains_keys, pair_keys, train_of
from alignrec.pipeline.train.embeddings import Embeddings, read_embeddings

MEASURED_AT = 20  # cutoff of the recall that is recorded
SAMPLE = 1000  # users it is measured on
ENOUGH = 0.95  # recall that an inverted file must reach: it decides how many lists are searched
BLOCK = 1024  # users a search


class Indexed(NamedTuple):
    """An index of the item vectors, row number = item_id; the same bytes for the same vectors."""

    write: Callable[[Path], object]
    facts: dict[str, Any]  # kind, items, width, recall at k, the users it was measured on; of `ivf` also its lists


def write_index(layout: Layout, exact_up_to: int) -> None:
    """Write a FAISS index of the item vectors, and its facts, such as its recall for a sample of users."""
    user, item = read_embeddings(layout)
    asked = np.linspace(0, len(user) - 1, min(SAMPLE, len(user))).astype(np.int64)
    bought = io.read_slices(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"], io.PART)
    seen = train_of(bought, asked, len(user), len(item))
    index = build_index(item, user.take(asked), seen, exact_up_to)
    with io.atomic(layout.items_index) as temporary:
        index.write(temporary)
    io.write_json(layout.index_facts, index.facts)


def build_flat(item: np.ndarray) -> faiss.Index:
    index = faiss.IndexFlatIP(item.shape[1])
    index.add(np.ascontiguousarray(item, np.float32))
    return index


def build_index(item: Embeddings, user: np.ndarray, seen: Pairs, exact_up_to: int) -> Indexed:
    """Return an index of items, with its recall at k against the evaluation's full ranking for a sample of users.

    A catalogue larger than `exact_up_to` gets an inverted file, searched in as many lists as ENOUGH takes.
    """
    k, places = min(MEASURED_AT, len(item)), np.arange(len(user))
    best = search_exact(user, item, k, seen)

    def found(index: faiss.Index) -> float:
        return index_recall(recommend_items(index, user, places, k, seen)[0], best)

    facts: dict[str, Any] = {"kind": "flat"}
    if len(item) <= exact_up_to:
        index = build_flat(item.read())
    else:
        index = build_inverted(item)
        while found(index) < ENOUGH and index.nprobe < index.nlist:
            index.nprobe = min(2 * index.nprobe, index.nlist)
        facts = {"kind": "ivf", "lists": index.nlist, "searched": index.nprobe}
    facts |= {"items": len(item), "width": item.width, "recall": round(found(index), 4), "k": k, "users": len(user)}
    return Indexed(lambda path: faiss.write_index(index, str(path)), facts)


def build_inverted(item: Embeddings) -> Any:
    rows = np.random.default_rng(0).choice(len(item), min(len(item), approximate.SAMPLE), replace=False)
    index = approximate.train_index(item.take(np.sort(rows)), len(item), "Flat")
    for part in item:
        index.add(part)
    return index


def search_exact(user: np.ndarray, item: Iterable[np.ndarray], k: int, seen: Pairs) -> np.ndarray:
    """Return what `evaluation.metrics.topk` does of items in parts, float32 [n, D]: int32 [N, K]."""
    from alignrec.pipeline.evaluation.metrics import topk  # loads torch, which retrieval does not need

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
    """Return items int32 [N, K] of highest dot product that a user has not `seen`, and their scores, best first.

    Equal scores are in ascending item order; -1 and -inf where no more are left. UserError: K exceeds the catalogue.
    """
    n_items = index.ntotal
    if k > n_items:
        raise UserError(f"{k} items wanted, and the catalogue has {n_items}; ask for fewer")
    seen_keys, n_seen = pair_keys(seen, n_items), np.bincount(seen.users, minlength=len(user))[users]
    ids, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
    order = np.argsort(n_seen, kind="stable")  # users with as much to leave out search together
    for at in range(0, len(order), BLOCK):  # blocks bound the memory
        rows = order[at : at + BLOCK]
        fetched = min(k + int(n_seen[rows].max()), n_items)
        value, item = index.search(np.ascontiguousarray(user[users[rows]], np.float32), fetched)
        masked = contains_keys(seen_keys, users[rows, None].astype(np.int64) * n_items + item) | (item < 0)
        value = np.where(masked, -np.inf, value)
        best = np.lexsort((item, -value), axis=1)[:, :k]
        scores[rows] = np.take_along_axis(value, best, 1)
        ids[rows] = np.where(np.isneginf(scores[rows]), -1, np.take_along_axis(item, best, 1))
    return ids, scores


def index_recall(retrieved: np.ndarray, exact: np.ndarray) -> float:
    hits = (retrieved[:, :, None] == exact[:, None, :]).any(1) & (exact >= 0)
    return float(hits.sum() / max((exact >= 0).sum(), 1))
