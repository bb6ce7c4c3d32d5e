"""Top 20 of every user at Amazon Baby's size, from the index, without seen items; next to a user at a time in NumPy."""

from __future__ import annotations

from functools import partial

import faiss
import numpy as np

from benchmarks import Measurement, _turns
from benchmarks.train import ITEMS, TRAIN, USERS
from pipeline.interactions.split import Pairs
from pipeline.ops.device import gemm_rate
from pipeline.train import retrieval

WIDTH, K = 64, 20
SERVED = 2000  # users of the reference's turn; ours serves all
ROUNDS = 5


def run() -> Measurement:
    """Serve the same users both ways; the items must be the same."""
    import torch

    user, item, seen = _inputs()
    index = retrieval.flat(item)
    everyone = np.arange(USERS)
    some = np.linspace(0, USERS - 1, SERVED).astype(int)
    turns = {
        "one by one": partial(_turns.timed, _one_by_one, user, item, seen, some),
        "ours": partial(_turns.timed, lambda: retrieval.retrieve(index, user, everyone, K, seen)[0]),
    }
    ways = _turns.take(turns, ROUNDS, {"one by one": SERVED, "ours": USERS}, warm_up=True)
    same = float((ways["ours"].last[some] == ways["one by one"].last).mean())
    if same < 0.999:  # the two add up in another order, which may swap near-equal scores
        raise RuntimeError(f"only {same:.4f} of the places agree")
    return Measurement(
        ways=ways,
        ours="ours",
        reference="one by one",
        unit="users/s",
        higher_is_better=True,
        limit=gemm_rate("float32", 1.0) / (2 * ITEMS * WIDTH),
        limit_is="scores of all items by products at this machine's float32 GEMM rate, nothing selected",
        what=f"{USERS:,} users, {ITEMS:,} items, {WIDTH}-d, {len(seen):,} train pairs masked, top {K}; the reference: "
        "a matrix-vector product and a full sort a user",
        details={
            "bytes": len(faiss.serialize_index(index)),
            "places_that_agree": same,
            "threads": torch.get_num_threads(),
        },
    )


def _inputs() -> tuple[np.ndarray, np.ndarray, Pairs]:
    """Generate vectors with tastes in them, and train pairs with a long tail of users."""
    rng = np.random.default_rng(0)
    tastes = rng.normal(size=(100, WIDTH))
    user, item = (tastes[rng.integers(0, 100, n)] + rng.normal(size=(n, WIDTH)) for n in (USERS, ITEMS))
    who = (USERS * rng.random(2 * TRAIN) ** 1.5).astype(np.int64)
    pairs = np.sort(rng.permutation(np.unique(who * ITEMS + rng.integers(0, ITEMS, len(who))))[:TRAIN])
    seen = Pairs((pairs // ITEMS).astype(np.int32), (pairs % ITEMS).astype(np.int32))
    return user.astype("f4"), item.astype("f4"), seen


def _one_by_one(user: np.ndarray, item: np.ndarray, seen: Pairs, users: np.ndarray) -> np.ndarray:
    start = np.searchsorted(seen.users, np.arange(USERS + 1))
    top = np.empty((len(users), K), np.int64)
    for row, u in enumerate(users):
        scores = item @ user[u]
        scores[seen.items[start[u] : start[u + 1]]] = -np.inf
        top[row] = np.argsort(-scores)[:K]
    return top
