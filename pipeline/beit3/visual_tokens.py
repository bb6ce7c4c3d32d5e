"""Visual tokens that MIM predicts: nearest centroids of patches, or of the image tokens of `mini`.

Letters: n images, B batch, S image side, P patches or image tokens, p patch side, W_p width of the
vectors of an image token.
"""

from collections.abc import Iterator, Sequence

import faiss
import numpy as np
from safetensors.numpy import load_file, save

from alignrec.pipeline import io
from alignrec.pipeline.beit3.config import BEiT3Config
from alignrec.pipeline.beit3.image_vectors import ImageVectors
from alignrec.pipeline.linalg.projections import Whitening
from alignrec.pipeline.runtime.layout import Layout

CENTROIDS = "centroids"  # name of their tensor
KMEANS_ITERATIONS = 20
PATCHES_PER_CODE = 128  # that k-means reads
MAX_SAMPLE_BYTES = 2**30  # of the patches that k-means samples from
MIN_IMAGES_PER_CODE = 8  # of an image token
ARRAY_BLOCK_ITEMS = 4096  # read at a time from memory-mapped arrays


def read_codes(
    layout: Layout, pixels: np.ndarray, shape: BEiT3Config, codes: int, seed: int
) -> tuple[np.ndarray, int]:
    """Return the nearest centroid of each patch, int32 [n, P], and the number of centroids.

    Centroids, at most `codes`, are learned unless a killed run did.
    """
    if not len(pixels):
        return np.zeros((0, shape.patches), np.int32), 0
    if not layout.visual_tokens.is_file():
        centroids = _learn_centroids(pixels, shape.patch, codes, seed)
        io.write_bytes(layout.visual_tokens, save({CENTROIDS: centroids}))
    centroids = load_file(io.require_plain(layout.visual_tokens))[CENTROIDS]
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)

    def nearest() -> Iterator[np.ndarray]:
        for start in range(0, len(pixels), ARRAY_BLOCK_ITEMS):
            patches = cut_patches(pixels[start : start + ARRAY_BLOCK_ITEMS], shape.patch)
            _, places = index.search(patches.reshape(-1, patches.shape[2]), 1)
            yield places.reshape(patches.shape[:2]).astype(np.int32)

    return io.memory_map(nearest(), layout.encoder_scratch), len(centroids)


def _learn_centroids(pixels: np.ndarray, side: int, codes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    _, per_image, width = cut_patches(pixels[:1], side).shape
    max_patches = min(4 * PATCHES_PER_CODE * codes, MAX_SAMPLE_BYTES // (4 * width))
    max_images = max_patches // per_image + 1
    images = np.sort(rng.permutation(len(pixels))[:max_images])
    patches = cut_patches(pixels[images], side).reshape(-1, width)

    # equal patches count once; otherwise most codes of drawings on white would be shades of white
    distinct = np.unique(patches, axis=0)
    rows = np.sort(rng.permutation(len(distinct))[: PATCHES_PER_CODE * codes])
    sample = distinct[rows]
    if len(sample) <= codes:
        return sample
    kmeans = train_kmeans(sample, codes, seed, max_points_per_centroid=PATCHES_PER_CODE)
    return np.asarray(kmeans.centroids, np.float32)


def cut_patches(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cut uint8 [B, S, S, 3] into patches, float32 [B, P, 3 p p] in [-1, 1]."""
    batch, image_side = pixels.shape[:2]
    grid = image_side // side
    whole = pixels[:, : grid * side, : grid * side]
    patches = whole.reshape(batch, grid, side, grid, side, 3).transpose(0, 1, 3, 2, 4, 5)
    return patches.reshape(batch, grid * grid, -1).astype(np.float32) / 127.5 - 1


def assign_visual_tokens(
    images: ImageVectors, maps: Sequence[Whitening], max_codes: int, seed: int
) -> tuple[np.ndarray, int]:
    """Return the nearest centroid of each image token, int32 [I, P], and the number of them all."""
    out = np.zeros((len(images.row), len(images.widths)), np.int32)
    items = images.items
    sample = images.sample(seed)
    total = 0
    for token, projection in enumerate(maps):
        vectors = projection.apply(images.tokens(sample)[token])
        count = max(1, min(max_codes, len(vectors) // MIN_IMAGES_PER_CODE))
        kmeans = train_kmeans(vectors, count, seed)

        for start in range(0, len(items), ARRAY_BLOCK_ITEMS):
            block = items[start : start + ARRAY_BLOCK_ITEMS]
            vectors = projection.apply(images.tokens(block)[token])
            _, nearest = kmeans.index.search(vectors, 1)
            out[block, token] = total + nearest[:, 0]
        total += count
    return out, total


def train_kmeans(sample: np.ndarray, codes: int, seed: int, **options: int) -> faiss.Kmeans:
    faiss.omp_set_num_threads(1)  # the same order of sums on every machine
    kmeans = faiss.Kmeans(
        sample.shape[1],
        codes,
        niter=KMEANS_ITERATIONS,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        **options,
    )
    kmeans.train(sample)
    return kmeans
