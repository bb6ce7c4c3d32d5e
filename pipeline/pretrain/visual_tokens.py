"""Discrete visual tokens without a download: the nearest of C k-means centroids of patches.

Letters: B batch, S image side, P patches, p patch side, W width of a vector, C codes.
"""

from collections.abc import Callable, Iterator

import faiss
import numpy as np

ITERATIONS = 20
SAMPLE = 128  # vectors per code in k-means
MEMORY = 2**30  # bytes, at most, of the vectors that k-means samples from
BLOCK = 4096  # images whose tokens are assigned at a time

Vectors = Callable[[np.ndarray], np.ndarray]  # images, int64 [B] -> vectors of their patches, float32 [B, P, W]


def cut_patches(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cut uint8 [B, S, S, 3] into patches, float32 [B, P, 3 p p] in [-1, 1]."""
    b, s = pixels.shape[:2]
    grid = s // side
    cut = pixels[:, : grid * side, : grid * side].reshape(b, grid, side, grid, side, 3)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(b, grid * grid, -1).astype(np.float32) / 127.5 - 1


def learn_codebook(vectors: Vectors, images: int, codes: int, seed: int) -> np.ndarray:
    """Learn the codebook by k-means: float32 [C, W], with fewer codes if fewer vectors differ."""
    rng = np.random.default_rng(seed)
    _, per_image, width = vectors(np.arange(1)).shape
    most = MEMORY // (4 * width)
    enough = min(4 * SAMPLE * codes, most) // per_image + 1
    some = vectors(np.sort(rng.permutation(images)[:enough]))
    # equal vectors count once, or most codes of drawings on white would be shades of white
    distinct = np.unique(some.reshape(-1, width), axis=0)
    sample = distinct[np.sort(rng.permutation(len(distinct))[: SAMPLE * codes])]
    if len(sample) <= codes:
        return sample
    return np.asarray(train_kmeans(sample, codes, seed, max_points_per_centroid=SAMPLE).centroids, np.float32)


def train_kmeans(sample: np.ndarray, codes: int, seed: int, **options: int) -> faiss.Kmeans:
    faiss.omp_set_num_threads(1)  # for the same order of sums on every machine
    options |= {"niter": ITERATIONS, "seed": seed % 2**31, "min_points_per_centroid": 1}
    kmeans = faiss.Kmeans(sample.shape[1], codes, **options)
    kmeans.train(sample)
    return kmeans


def assign_codes(vectors: Vectors, images: int, centroids: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the nearest code of each vector, int32 [<= BLOCK, P]."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    for first in range(0, images, BLOCK):
        block = vectors(np.arange(first, min(first + BLOCK, images)))  # [B, P, W]
        yield index.search(block.reshape(-1, block.shape[2]), 1)[1].reshape(block.shape[:2]).astype(np.int32)
