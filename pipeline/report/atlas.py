"""A 2-d map of the items by UMAP's forces (McInnes et al. 2018, a = b = 1) on the item graph.

Letters: I items, E edges.
"""

import numpy as np
import pyarrow as pa

WIDTH, HEIGHT, MARGIN = 10_000, 6_200, 120
ROUNDS, LEAST_ROUNDS, MOVES = 400, 120, 4_000_000  # bounds of the rounds, and budget of moves over all rounds
PUSHES = 5  # random items that repel each item, per round
SMOOTHING = 40  # averaging steps of the start
STEP = 0.3
FARTHEST = 4.0  # largest move along an axis by one force


def map_positions(edges: pa.Table, n_items: int, seed: int) -> list[int]:
    """Return x and y of each item, interleaved."""
    spread = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    rounds = min(ROUNDS, max(LEAST_ROUNDS, MOVES // max(n_items, 1)))
    return (layout(edges, n_items, seed, rounds) * spread + MARGIN).round().astype(int).ravel().tolist()


def layout(edges: pa.Table, n_items: int, seed: int, rounds: int = ROUNDS) -> np.ndarray:
    """Return positions float64 [I, 2] in 0 .. 1, from edges of schema EDGES."""
    if n_items < 3:
        return np.stack([np.arange(1, n_items + 1) / (n_items + 1), np.full(n_items, 0.5)], axis=1)
    item, other = (edges[c].to_numpy().astype(np.int64) for c in ("item_id", "neighbour_id"))
    kept = item != other
    item, other = item[kept], other[kept]
    rng = np.random.default_rng(seed)
    ends = np.maximum(np.bincount(item, minlength=n_items) + np.bincount(other, minlength=n_items), 1)[:, None]
    at = 10 * _start(item, other, n_items, rng)
    for r in range(rounds):
        step = STEP * (1 - r / rounds)
        gap = at[item] - at[other]  # [E, 2]
        pull = np.clip(-2 * gap / (1 + (gap**2).sum(axis=1, keepdims=True)), -FARTHEST, FARTHEST)
        move = (_summed(item, pull, n_items) - _summed(other, pull, n_items)) / ends
        for others in rng.integers(0, n_items, (PUSHES, n_items)):
            gap = at - at[others]
            square = (gap**2).sum(axis=1, keepdims=True)
            move += np.clip(2 * gap / ((0.01 + square) * (1 + square)), -FARTHEST, FARTHEST)
        at += step * move
    low, high = np.quantile(at, [0.005, 0.995], axis=0)  # outliers are clipped
    return np.clip((at - low) / np.maximum(high - low, 1e-9), 0, 1)


def _start(item: np.ndarray, other: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return random positions, averaged along the graph, then ranked, so that no component is an outlier."""
    from scipy import sparse  # not part of the light install, whose pages have no map

    ones = np.ones(len(item))
    walk = sparse.csr_array((ones, (item, other)), shape=(n, n))
    walk = walk + walk.T + sparse.eye_array(n, format="csr")
    walk = sparse.csr_array(sparse.diags_array(1 / walk.sum(axis=1)) @ walk)
    at = rng.standard_normal((n, 2))
    for _ in range(SMOOTHING):
        at = walk @ at
        at -= at.mean(axis=0)
        at = np.linalg.qr(at)[0]
    return at.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") / n - 0.5


def _summed(rows: np.ndarray, forces: np.ndarray, n: int) -> np.ndarray:
    return np.stack([np.bincount(rows, forces[:, axis], n) for axis in range(2)], axis=1)
