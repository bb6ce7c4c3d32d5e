"""Top-K retrieval by a FAISS index on inner products.

I items, D embedding width, N users, K cutoff.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import faiss
import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.split import Pairs, contains_keys, pair_keys, train_of
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models.training.embeddings import EmbeddingTable, read_embeddings
from alignrec.pipeline.runtime.layout import Layout

RECALL_CUTOFF = 20  # of the reported recall
RECALL_USERS = 1000  # on which recall is measured
MIN_RECALL = 0.95  # of an inverted file: determines the number of lists searched
USERS_PER_SEARCH = 1024


def write_index(layout: Layout, exact_up_to: int) -> None:
    user, item = read_embeddings(layout)
    last_user = len(user) - 1
    sample = np.linspace(0, last_user, min(RECALL_USERS, len(user))).astype(np.int64)
    columns = ["user_id", "item_id", "split"]
    slices = io.read_slices(layout.interactions, schemas.INTERACTIONS, columns, io.PART)
    seen = train_of(slices, sample, len(user), len(item))

    index, facts = build_index(item, user.take(sample), seen, exact_up_to)
    with io.atomic(layout.items_index) as temporary:
        faiss.write_index(index, str(temporary))
    io.write_json(layout.index_facts, facts)


def build_flat(item: Iterable[np.ndarray], width: int) -> faiss.Index:
    """Build an exact index of item vectors in blocks, float32 [n, D]."""
    index = faiss.IndexFlatIP(width)
    for part in item:
        index.add(np.ascontiguousarray(part))
    return index


class RecallSample(NamedTuple):
    """Users on which the recall of an index is measured."""

    user: np.ndarray  # float32 [N, D]
    seen: Pairs
    best: np.ndarray  # exact ranking, int32 [N, K]

    def recall(self, index: faiss.Index) -> float:
        every_row = np.arange(len(self.user))
        k = self.best.shape[1]
        retrieved, _ = recommend_items(index, self.user, every_row, k, self.seen)
        return index_recall(retrieved, self.best)


def build_index(
    item: EmbeddingTable, user: np.ndarray, seen: Pairs, exact_up_to: int
) -> tuple[Any, dict[str, Any]]:
    """Build an index of item vectors, row = item_id, which is reproducible byte by byte.

    Its facts are kind, items, width, and recall at k against exact ranking on a sample of users; of
    `ivf` also lists.
    """
    k = min(RECALL_CUTOFF, len(item))
    index = build_flat(item, item.width)
    best, _ = recommend_items(index, user, np.arange(len(user)), k, seen)
    sample = RecallSample(user, seen, best)

    facts: dict[str, Any] = {"kind": "flat"}
    if len(item) > exact_up_to:
        del index  # both at once would double the memory
        index = build_inverted_file(item, sample)
        facts = {"kind": "ivf", "lists": index.nlist, "searched": index.nprobe}

    recall = round(sample.recall(index), 4)
    facts |= {"items": len(item), "width": item.width, "recall": recall}
    return index, facts | {"k": k, "users": len(user)}


def build_inverted_file(item: EmbeddingTable, sample: RecallSample) -> Any:
    """Build an index that searches as many lists as MIN_RECALL takes."""
    n_training = neighbours.count_fit_rows(len(item))
    rows = np.random.default_rng(0).choice(len(item), n_training, replace=False)
    index = neighbours.train_index(item.take(np.sort(rows)), len(item))
    for part in item:
        index.add(part)

    while sample.recall(index) < MIN_RECALL and index.nprobe < index.nlist:
        index.nprobe = min(2 * index.nprobe, index.nlist)
    return index


def recommend_items(
    index: faiss.Index, user: np.ndarray, users: np.ndarray, k: int, seen: Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """Return the unseen items of highest dot product, int32 [N, K], and scores.

    Best first, ties by item, padded with -1 and -inf; UserError if K exceeds the catalogue.
    """
    n_items = index.ntotal
    if k > n_items:
        raise UserError(f"{k} items wanted, and the catalogue has {n_items}; ask for fewer")

    seen_keys = pair_keys(seen, n_items)
    n_seen = np.bincount(seen.users, minlength=len(user))[users]
    ids = np.full((len(users), k), -1, np.int32)
    scores = np.full((len(users), k), -np.inf, np.float32)
    order = np.argsort(n_seen, kind="stable")  # batch users with similar numbers of seen items
    for start in range(0, len(order), USERS_PER_SEARCH):  # blocks bound the memory
        rows = order[start : start + USERS_PER_SEARCH]
        n_retrieved = min(k + int(n_seen[rows].max()), n_items)
        queries = np.ascontiguousarray(user[users[rows]], np.float32)
        score, item = index.search(queries, n_retrieved)

        keys = users[rows, None].astype(np.int64) * n_items + item
        masked = contains_keys(seen_keys, keys) | (item < 0)
        score = np.where(masked, -np.inf, score)
        best = np.lexsort((item, -score), axis=1)[:, :k]
        scores[rows] = np.take_along_axis(score, best, 1)
        best_items = np.take_along_axis(item, best, 1)
        ids[rows] = np.where(np.isneginf(scores[rows]), -1, best_items)
    return ids, scores


def index_recall(retrieved: np.ndarray, exact: np.ndarray) -> float:
    is_item = exact >= 0
    hits = (retrieved[:, :, None] == exact[:, None, :]).any(1) & is_item
    return float(hits.sum() / max(is_item.sum(), 1))
