"""The inverted file of FAISS, the same for the same rows at any number of threads. Letters: N rows, D width."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np

TRAINED_ON = 64
"""rows a cell that k-means sees"""
SEED = 0


def inverted(rows: np.ndarray) -> faiss.IndexIVFFlat:
    """Return an inverted file of float32 [N, D] by inner product, over 4 sqrt(N) cells: k-means of the directions."""
    n, width = rows.shape
    cells = max(1, min(round(4 * n**0.5), n // 4))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.seed, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = SEED, TRAINED_ON, 1
    with one_thread():  # sums in one order: the same centroids each time
        index.train(rows)
    index.add(rows)
    return index


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS use one thread, where the order of its work would show in the result."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
