"""Top-K retrieval from a recommender's vectors: a FAISS index by inner product, exact while the catalogue is small.

Letters: I items, D width, N users, K cutoff.
"""

from typing import Any

import faiss
import numpy as np

from pipeline.errors import UserError
from pipeline.graph.approximate import inverted
from pipeline.interactions.split import Pairs, contains, keys

MEASURED_AT = 20  # cutoff of the recall that is recorded
SAMPLE = 1000  # users it is measured on
ENOUGH = 0.95  # recall that an inverted file must reach: it decides how many lists are searched
BLOCK = 1024  # users a search


def build(item: np.ndarray, exact_up_to: int) -> faiss.Index:
    """Return an index of the item vectors, row number = item_id; the same bytes for the same vectors.

    Args:
        item: float32 [I, D].
        exact_up_to: a larger catalogue gets an inverted file (k-means lists), searched in part; `tune` sets how much.
    """
    item = np.ascontiguousarray(item, np.float32)
    if len(item) > exact_up_to:
        return inverted(item)
    index = faiss.IndexFlatIP(item.shape[1])
    index.add(item)
    return index


def retrieve(
    index: faiss.Index, user: np.ndarray, users: np.ndarray, k: int, seen: Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """Return the K items of highest dot product that a user has not seen, best first.

    Args:
        user: float32 [U, D].
        users: int [N].
        seen: pairs never recommended, ordered by user.

    Returns:
        item_id int32 [N, K] and scores float32 [N, K]; equal scores in ascending item order; -1 and -inf where no
        more are left.

    Raises:
        UserError: k is larger than the catalogue.
    """
    n_items = index.ntotal
    if k > n_items:
        raise UserError(f"{k} items wanted, and the catalogue has {n_items}; ask for fewer")
    seen_keys, n_seen = keys(seen, n_items), np.bincount(seen.users, minlength=len(user))[users]
    ids, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
    order = np.argsort(n_seen, kind="stable")  # users with as much to leave out search together
    for at in range(0, len(order), BLOCK):  # blocks bound the memory
        rows = order[at : at + BLOCK]
        fetched = min(k + int(n_seen[rows].max()), n_items)
        value, item = index.search(np.ascontiguousarray(user[users[rows]], np.float32), fetched)
        masked = contains(seen_keys, users[rows, None].astype(np.int64) * n_items + item) | (item < 0)
        value = np.where(masked, -np.inf, value)
        best = np.lexsort((item, -value), axis=1)[:, :k]
        scores[rows] = np.take_along_axis(value, best, 1)
        ids[rows] = np.where(np.isneginf(scores[rows]), -1, np.take_along_axis(item, best, 1))
    return ids, scores


def tune(index: faiss.Index, item: np.ndarray, user: np.ndarray, seen: Pairs) -> dict[str, Any]:
    """Set how many lists an inverted file searches to reach ENOUGH; return facts of the index and its recall.

    Args:
        item: float32 [I, D].
        user: float32 [U, D].
        seen: pairs never recommended, ordered by user.

    Returns:
        kind, items, width, recall at k against the evaluation's full ranking, the users it was measured on, and for an
        inverted file its lists and how many of them are searched.
    """
    from pipeline.evaluation.ranking import topk  # loads torch, which retrieval does not need

    k, n = min(MEASURED_AT, len(item)), min(SAMPLE, len(user))
    users = np.linspace(0, len(user) - 1, n).astype(np.int64)
    exact = topk(user, item, k, seen, users)
    facts: dict[str, Any] = {"kind": "flat"}
    if isinstance(index, faiss.IndexIVF):
        index.nprobe = 1
        while recall(retrieve(index, user, users, k, seen)[0], exact) < ENOUGH and index.nprobe < index.nlist:
            index.nprobe = min(2 * index.nprobe, index.nlist)
        facts = {"kind": "ivf", "lists": index.nlist, "searched": index.nprobe}
    measured = recall(retrieve(index, user, users, k, seen)[0], exact)
    return facts | {"items": len(item), "width": item.shape[1], "recall": round(measured, 4), "k": k, "users": n}


def recall(retrieved: np.ndarray, exact: np.ndarray) -> float:
    """Return the share of the exact items [N, K] that are among the retrieved [N, K]; places of -1 do not count."""
    hits = (retrieved[:, :, None] == exact[:, None, :]).any(1) & (exact >= 0)
    return float(hits.sum() / max((exact >= 0).sum(), 1))


def to_bytes(index: faiss.Index) -> bytes:
    return faiss.serialize_index(index).tobytes()
