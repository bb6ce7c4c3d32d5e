"""Linear algebra of vectors: normalisation, whitening and PCA, joined maps, geometry.

Results are reproducible to the last bit. n vectors or I items, D, F and G widths before, W after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from alignrec.pipeline.io.writing import memory_map

if TYPE_CHECKING:
    from scipy import sparse

PROJECTION_BLOCK_ROWS = 8192  # mapped at once, to bound memory
ROWS_CHECKED_AT_ONCE = 1 << 16
# share of the mean variance added to every variance, so that directions of low variance are not
# amplified
FLOOR = 1e-3
Seed = int | Sequence[int]  # s and [s, 0] give the same draws
# defaults of joined blocks
JOINT_WIDTH = 128
JOINT_POWER = 0.5
IMAGE_WEIGHT = 0.6  # weight of image-only vectors; others weigh 1
# yields batches of items, as one float32 [n, F] per part; called once per pass
Parts = Callable[[], Iterable[Sequence[np.ndarray]]]


def unit_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows [N, D] scaled to length 1, float32, and which have a finite length > 0, bool [N].

    Others are zero.
    """
    x = np.asarray(x, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(x, axis=1)
    directed = np.isfinite(length) & (length > 0)
    units = np.zeros(x.shape, np.float32)
    np.divide(x, length[:, None], out=units, where=directed[:, None])
    return units, directed


def paired_cosines(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the cosine of each vector [n, F] and its target [n, G], float64 [n].

    The narrower side is padded with zeros. Two rows of zeros have cosine 1, one alone 0.
    """
    units, directed = unit_rows(x)
    target_units, target_directed = unit_rows(target)
    width = min(x.shape[1], target.shape[1])
    shared = units[:, :width], target_units[:, :width]
    cosines = np.einsum("nf,nf->n", *shared, dtype=np.float64)
    cosines[~directed & ~target_directed] = 1
    return cosines


def float64_units(x: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """Normalise rows of x [N, D] like `unit_rows`, as float64 [n, D], for comparing cosines."""
    return unit_rows(x[rows])[0].astype(np.float64)


def first_not_finite(x: np.ndarray) -> int | None:
    for start in range(0, len(x), ROWS_CHECKED_AT_ONCE):
        finite = np.isfinite(x[start : start + ROWS_CHECKED_AT_ONCE]).all(axis=1)
        if not finite.all():
            return start + int(np.argmin(finite))

    return None


def random_vectors(items: int, width: int, seed: Seed) -> np.ndarray:
    """Return standard normal vectors, float32 [I, F]."""
    return np.random.default_rng(seed).standard_normal((items, width), dtype=np.float32)


def shuffled_order(items: int, seed: Seed) -> np.ndarray:
    """Return a permutation, int64 [I], that is one random cycle, so that no item keeps its own
    vector.
    """
    order = np.random.default_rng(seed).permutation(items)
    source = np.empty(items, np.int64)
    source[order] = np.roll(order, 1)
    return source


def right_vectors(matrix: sparse.csr_array, width: int, seed: int) -> np.ndarray:
    """Return at most `width` right singular vectors of float64 [n, m], largest first.

    The result is float64 [m, W].
    """
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    with threadpool_limits(1):  # the order of sums decides the last bits
        if width < min(matrix.shape):
            _, singular, right = svds(matrix, width, v0=start)
        else:  # ARPACK cannot find all of them
            _, singular, right = np.linalg.svd(matrix.toarray(), full_matrices=False)

    order = np.argsort(-singular, kind="stable")
    smallest = np.finfo(np.float32).eps * singular.max()
    order = order[singular[order] > smallest]
    return _orient_columns(right[order].T)


class Whitening(NamedTuple):
    """The affine map `(x - mean) @ map` (as in BERT-whitening, arXiv 2103.15316)."""

    mean: np.ndarray  # float32 [D]
    # float32 [D, D], symmetric (ZCA), hence independent of the signs of eigenvectors; [D, W] from
    # `fit_pca`
    map: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Map [n, D] to float32 [n, W]; rows of zeros stay zero."""
        with threadpool_limits(1):
            return np.where(x.any(axis=1, keepdims=True), (x - self.mean) @ self.map, np.float32(0))


def fit_whitening(x: np.ndarray) -> Whitening:
    """Fit to vectors [n, D]; vectors without variance are only centred."""
    # CLS vectors share a large mean and vary mostly along a few directions, which would dominate
    # every cosine
    n = max(1, len(x))
    mean = x.sum(axis=0, dtype=np.float64) / n
    centred = x - mean
    variance, directions = np.linalg.eigh(centred.T @ centred / n)
    variance = np.maximum(variance, 0) + FLOOR * variance.mean()

    scale = np.ones_like(variance)
    if variance.mean() > 0:
        scale = 1 / np.sqrt(variance)
    zca = (directions * scale) @ directions.T
    return Whitening(mean.astype(np.float32), zca.astype(np.float32))


def fit_pca(
    read_blocks: Callable[[], Iterable[np.ndarray]], width: int, power: float = 1
) -> Whitening:
    """Fit PCA, scaled by sd^-power, to the non-zero vectors in blocks, float32 [b, D] each.

    They are read twice. W is at most `width`, or the rank of the vectors.
    """
    from scipy import linalg  # takes 0.3 s to import, and is only needed to fit

    with threadpool_limits(1):  # the order of sums decides the last bits
        mean, covariance = _moments_of_nonzero(read_blocks)
        last = len(mean) - 1
        largest = [max(0, last + 1 - width), last]
        variance, directions = linalg.eigh(covariance, subset_by_index=largest)
    variance = variance[::-1]
    directions = directions[:, ::-1]

    # drop variance that float32 cannot distinguish from zero at the vectors' scale
    scale_squared = mean @ mean + np.trace(covariance)
    varied = variance > np.finfo(np.float32).eps ** 2 * scale_squared
    if not varied.any():  # W is 1, with a map of zeros
        return Whitening(mean.astype(np.float32), np.zeros((len(mean), 1), np.float32))

    variance = variance[varied]
    directions = _orient_columns(directions[:, varied])
    scale = (1 / np.sqrt(variance + FLOOR * variance.mean())) ** power
    return Whitening(mean.astype(np.float32), (directions * scale).astype(np.float32))


def _moments_of_nonzero(
    read_blocks: Callable[[], Iterable[np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the non-zero vectors, float64 [D] and [D, D]."""
    n = 0
    total = np.float64(0)
    for x in read_blocks():
        n += int(x.any(axis=1).sum())
        total = total + x.sum(axis=0, dtype=np.float64)
    n = max(1, n)
    mean = np.asarray(total / n)

    # a second pass, because the mean may be large compared with the variance
    covariance = np.zeros((len(mean), len(mean)))
    for x in read_blocks():
        centred = x[x.any(axis=1)] - mean
        covariance += centred.T @ centred / n
    return mean, covariance


def whiten_rows(x: np.ndarray, width: int, power: float = 1) -> np.ndarray:
    """Fit `fit_pca` to vectors and apply it: float32 [n, D] -> [n, W].

    The result is memory-mapped from an unlinked file.
    """
    blocks = [
        x[start : start + PROJECTION_BLOCK_ROWS]
        for start in range(0, len(x), PROJECTION_BLOCK_ROWS)
    ]
    fitted = fit_pca(lambda: blocks, width, power)
    return memory_map(map(fitted.apply, blocks))


class Block(NamedTuple):
    """Columns of a part that are whitened together."""

    part: int
    columns: np.ndarray  # bool [F]
    weight: float
    unit: bool = True  # normalise mapped vectors to length 1


@dataclass(frozen=True)
class JoinedMap:
    """Map from the parts' vectors to one: blocks whitened, scaled, concatenated and reduced."""

    blocks: Sequence[Block]
    maps: Sequence[Whitening | None]  # one per block; None is the identity
    last: Whitening | None = None  # applied to the concatenation; None is the identity

    @property
    def width(self) -> int:
        if self.last:
            return int(self.last.map.shape[1])

        width = 0
        for block, fitted in zip(self.blocks, self.maps, strict=True):
            width += int(block.columns.sum()) if fitted is None else fitted.map.shape[1]
        return width

    def __call__(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Map parts, float32 [n, F] each, to float32 [n, W]."""
        vectors_of_blocks = []
        for block, fitted in zip(self.blocks, self.maps, strict=True):
            vectors = parts[block.part][:, block.columns]
            if fitted is not None:
                vectors = fitted.apply(vectors)
            if block.unit:
                units, _ = unit_rows(vectors)
                vectors = units * np.float32(block.weight)
            vectors_of_blocks.append(vectors)

        joined = np.hstack(vectors_of_blocks)
        return joined if self.last is None else self.last.apply(joined)


def fit_blocks(
    parts: Parts, blocks: Sequence[Block], width: int, power: float, reduced: bool = True
) -> JoinedMap:
    """Fit PCA to `width` directions at most per block, scaled by sd^-power.

    If `reduced`, also to the concatenation.
    """
    maps: list[Whitening] = []
    for block in blocks:

        def read_block(block: Block = block) -> Iterator[np.ndarray]:
            for batch in parts():
                yield batch[block.part][:, block.columns]

        maps.append(fit_pca(read_block, width, power))

    joined = JoinedMap(blocks, maps)
    if not reduced:
        return joined

    last = fit_pca(lambda: map(joined, parts()), width, 0)
    return replace(joined, last=last)


def concatenation_map(widths: Sequence[int]) -> JoinedMap:
    blocks = [Block(part, np.ones(width, bool), 1.0) for part, width in enumerate(widths)]
    return JoinedMap(blocks, [None] * len(widths))


def _orient_columns(directions: np.ndarray) -> np.ndarray:
    """Flip the signs of columns [D, W] so that the largest entry of each is positive."""
    largest = np.abs(directions).argmax(axis=0)
    return directions * np.sign(directions[largest, np.arange(directions.shape[1])])


class Shape(NamedTuple):
    """Geometry of one feature set."""

    width: int
    # exp of the entropy of the normalised singular values after centring (Roy and Vetterli 2007), 1
    # .. F
    effective_rank: float
    mean_cosine: float  # over pairs of distinct items; 0 if isotropic, 1 if all are parallel
    zero_rows: int  # items whose vector is zero or not finite


def spectrum(features: np.ndarray) -> np.ndarray:
    """Return the squared singular values of centred features [I, F]: float64 [F], ascending."""
    centred = features - features.mean(axis=0)
    return np.clip(np.linalg.eigvalsh(_cross_product(centred, centred)), 0, None)


def measure_shape(features: np.ndarray, spectrum: np.ndarray) -> Shape:
    units, directed = unit_rows(features)
    n_directed = directed.sum()
    total = units.astype(np.float64).sum(axis=0)
    n_pairs = max(n_directed * (n_directed - 1), 1)
    mean_cosine = (total @ total - n_directed) / n_pairs

    singular = np.sqrt(spectrum)
    negligible = 1e-6 * max(singular.max(initial=0), 1e-30)
    share = singular[singular > negligible]
    share = share / share.sum() if len(share) else np.ones(1)
    effective_rank = float(np.exp(-(share * np.log(share)).sum()))

    n_zero = len(features) - int(n_directed)
    return Shape(features.shape[1], effective_rank, float(mean_cosine), n_zero)


def linear_cka(
    a: np.ndarray, b: np.ndarray, spectrum_a: np.ndarray, spectrum_b: np.ndarray
) -> float:
    """Return linear CKA of [I, F] and [I, G] (Kornblith et al. 2019).

    It is ||B^T A||_F^2 / (||A^T A||_F ||B^T B||_F).
    """
    scale = np.linalg.norm(spectrum_a) * np.linalg.norm(spectrum_b)
    if scale <= 0:
        return 0.0

    crossed = _cross_product(a - a.mean(axis=0), b - b.mean(axis=0))
    return float((crossed**2).sum() / scale)


def _cross_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # float64: rounding in single precision would add to the effective rank
    total = np.zeros((a.shape[1], b.shape[1]))
    for start in range(0, len(a), PROJECTION_BLOCK_ROWS):
        rows_a = a[start : start + PROJECTION_BLOCK_ROWS].astype(np.float64)
        rows_b = rows_a  # BLAS halves the work of x.T @ x
        if b is not a:
            rows_b = b[start : start + PROJECTION_BLOCK_ROWS].astype(np.float64)
        total += rows_a.T @ rows_b
    return total
