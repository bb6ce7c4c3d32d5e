"""k-means and nearest centroids, a bounded number of distances at a time and with sums in one order.

n, m vectors, F width, K centroids.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import faiss
import numpy as np
import scipy.sparse as sp

from pipeline import engine
from pipeline.ops.linalg import limited

DISTANCES = 2**22
"""held at a time, by each thread"""
POINTS = 256
"""vectors a centroid that iterations see; the last centroids are means of all"""
STARTS = 64
"""vectors a centroid that the first centroids are drawn from"""
DRAWN = 4096
"""centroids at most whose start is chosen by distance; that of more is drawn, as choosing would take K^2 steps"""


def cluster(x: np.ndarray, k: int, iterations: int, seed: int) -> np.ndarray:
    """Return the centroids of k-means by FAISS, float32 [K, F], of float32 [m, F], at least K."""
    rng = np.random.default_rng(seed)
    with limited(1):  # the order of sums decides the last bits
        start = _start(x, k, rng)
        kmeans = faiss.Kmeans(
            x.shape[1], k, niter=iterations, seed=seed % 2**31,
            min_points_per_centroid=1, max_points_per_centroid=POINTS,
        )  # fmt: skip
        kmeans.train(x, init_centroids=start)
    centroids = np.asarray(kmeans.centroids, np.float32)
    return means(x, all_nearest(x, centroids), centroids) if len(x) > POINTS * k else centroids


def means(x: np.ndarray, codes: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the mean of the vectors [m, F] of each code, float32 [K, F]; of none, the centroid as it is."""
    counts = np.bincount(codes, minlength=len(centroids))
    members = sp.csc_array((np.ones(len(x), np.float32), codes, np.arange(len(x) + 1)), (len(centroids), len(x)))
    sums = members @ x
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None].astype(np.float32), centroids)


def nearest(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the nearest centroid of each row, int64 [n]; of equal ones the first."""
    with limited(1, user_api="blas"):
        parts = [distances(rows, centroids).argmin(axis=1) for rows in blocks(x, len(centroids))]
    return np.concatenate([np.empty(0, np.int64), *parts])


def all_nearest(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.concatenate(list(by_block(partial(nearest, centroids=centroids), blocks(x, len(centroids)))))


def distances(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return squared distances less the rows' own squares, float32 [b, K]; for callers that hold BLAS to a thread."""
    return (centroids**2).sum(axis=1) - 2 * (x @ centroids.T)


def blocks(x: np.ndarray, k: int) -> Iterator[np.ndarray]:
    rows = max(1, DISTANCES // k)
    return (x[at : at + rows] for at in range(0, len(x), rows))


def by_block(work: Callable[[np.ndarray], np.ndarray], given: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    with limited(1, user_api="blas"):  # for all threads: one that set it by itself would reset it for others
        yield from engine.threads(work, given)


def _start(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return K of the vectors, each the best of a few that were drawn by squared distance (greedy k-means++)."""
    x = x[np.sort(rng.choice(len(x), min(len(x), STARTS * k), replace=False))]
    if k > DRAWN:
        return x[np.sort(rng.choice(len(x), k, replace=False))]
    squares, tries = np.einsum("nf,nf->n", x, x), 2 + int(np.log(k))
    chosen = [int(rng.integers(len(x)))]
    left = _to(x, squares, np.array(chosen))[0]
    for _ in range(k - 1):  # each depends on those before
        total = np.cumsum(left, dtype=np.float64)
        drawn = np.searchsorted(total, rng.random(tries) * total[-1], side="right").clip(max=len(x) - 1)
        after = np.minimum(_to(x, squares, drawn), left)
        best = int(after.sum(axis=1, dtype=np.float64).argmin())
        left = after[best]
        chosen.append(int(drawn[best]))
    return x[chosen]


def _to(x: np.ndarray, squares: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.maximum(squares[rows, None] + squares - 2 * (x[rows] @ x.T), 0)
