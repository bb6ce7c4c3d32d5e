"""Discrete visual tokens without a download: the nearest of C k-means centroids of patches.

Letters: B batch, S image side, P patches, p patch side, C codes.
"""

from __future__ import annotations

import faiss
import numpy as np

ITERATIONS = 20
SAMPLE = 128
"""patches that k-means is given for each code; more changes little and costs time"""


def patches(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cut uint8 [B, S, S, 3] into patches, float32 [B, P, 3 p p] in [-1, 1], row by row."""
    b, s = pixels.shape[:2]
    grid = s // side
    cut = pixels[:, : grid * side, : grid * side].reshape(b, grid, side, grid, side, 3)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(b, grid * grid, -1).astype(np.float32) / 127.5 - 1


def learn(pixels: np.ndarray, side: int, codes: int, seed: int) -> np.ndarray:
    """Learn the codebook by k-means.

    Equal patches count once: else most codes of drawings on white would be shades of white.

    Args:
        pixels: uint8 [n, S, S, 3]; at most SAMPLE * codes patches of them are used.
        side: of a patch, p.
        codes: C; fewer where fewer patches differ.
        seed: of the sample and the start.

    Returns:
        float32 [C, 3 p p].
    """
    rng = np.random.default_rng(seed)
    per_image = (pixels.shape[1] // side) ** 2
    enough = 4 * SAMPLE * codes // per_image + 1
    some = pixels[np.sort(rng.permutation(len(pixels))[:enough])]
    distinct = np.unique(patches(some, side).reshape(len(some) * per_image, -1), axis=0)
    sample = distinct[np.sort(rng.permutation(len(distinct))[: SAMPLE * codes])]
    if len(sample) <= codes:
        return sample
    faiss.omp_set_num_threads(1)  # sums in one order on every machine
    kmeans = faiss.Kmeans(
        sample.shape[1],
        codes,
        niter=ITERATIONS,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE,
    )
    kmeans.train(sample)
    return np.asarray(kmeans.centroids, np.float32)


def assign(pixels: np.ndarray, side: int, centroids: np.ndarray) -> np.ndarray:
    """Return the nearest code of each patch, int64 [B, P]."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    cut = patches(pixels, side)
    return index.search(cut.reshape(-1, cut.shape[2]), 1)[1].reshape(cut.shape[:2])
