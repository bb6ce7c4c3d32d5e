"""Another feature set, mapped by ridge regression to collaborative factors of train interactions.

The factors are the leading right singular vectors of the train matrix, its rows and columns scaled by the inverse root
of their counts. The map is fitted to items with train interactions and applied to all.

Letters: U users, I items, n items of a shard, F and W widths.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy import linalg, sparse
from threadpoolctl import threadpool_limits

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encode.folder import FeatureSet
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.interactions.cooccurrence import user_item_matrix
from alignrec.pipeline.ops import whitening
from alignrec.pipeline.ops.linalg import right_vectors
from alignrec.pipeline.ops.whitening import Whitening

FACTORS = 128  # at most, fewer if train interactions have a lower rank; the width of the set
RIDGE = 1.0  # added to every variance, as a share of the mean variance


def fit_mapped(layout: Layout, part: FeatureSet, seed: int, cold: Sequence[int] | np.ndarray = ()) -> Whitening:
    """Return the map of a set's vectors, fitted without the interactions of items `cold`, int [C].

    UserError if no item has both train interactions and a vector.
    """
    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
    user, item, split = (rows[column].to_numpy() for column in ("user_id", "item_id", "split"))
    kept = (split == schemas.TRAIN) & ~np.isin(item, cold)
    known = np.bincount(item[kept], minlength=n_items) > 0
    known &= np.concatenate([x.any(axis=1) for x in part.vectors()])
    if not known.any():
        raise UserError(
            f"no item of {layout.dataset} has both train interactions and a vector of {part.name}; leave it out"
        )
    targets = collaborative_factors(user_item_matrix(user[kept], item[kept], n_items), FACTORS, seed)

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        start = 0
        for x in part.vectors():
            here = slice(start, start + len(x))
            yield x[known[here]], targets[here][known[here]]
            start += len(x)

    return fit_ridge(pairs, RIDGE)


def refit_mapped(layout: Layout, name: str, cold: np.ndarray) -> np.ndarray:
    """Return the vectors of a mapped set, fitted without the interactions of items `cold`, int [C]: float32 [I, W]."""
    facts = FeatureSet.of(layout, name).facts
    part = FeatureSet.of(layout, facts.parts[0])
    own = fit_mapped(layout, part, map_seed(layout.dataset, int(facts.settings["seed"])), cold)
    return np.concatenate([whitening.apply_whitening(own, x) for x in part.vectors()])


def map_seed(dataset: str, seed: int) -> int:
    return seed_for("mapped", dataset, seed)


def collaborative_factors(matrix: sparse.csr_array, width: int, seed: int) -> np.ndarray:
    """Return at most `width` factors of items times the root of their number, zero for items without users.

    Args:
        matrix: float32 [U, I], not empty, 1 where a user has an item in train.
        seed: starts ARPACK and affects the last bits.
    """
    scaled = matrix.astype(np.float64)
    users, items = scaled.sum(axis=1), scaled.sum(axis=0)
    left, right = (sparse.diags_array(1 / np.sqrt(np.maximum(1, counts))) for counts in (users, items))
    vectors = right_vectors(sparse.csr_array((left @ scaled @ right).tocsr()[:, items > 0]), width, seed)
    out = np.zeros((len(items), vectors.shape[1]))
    out[items > 0] = vectors * np.sqrt(len(vectors))
    return out


def fit_ridge(pairs: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], strength: float) -> Whitening:
    """Return the ridge regression from centred x to centred y; memory grows with F (F + W), not with rows.

    Args:
        pairs: returns all rows, x float32 [n, F] and y float64 [n, W] at a time; called twice.
        strength: penalty, as a share of the mean variance of x.
    """
    with threadpool_limits(1):  # the order of sums decides the last bits
        sums = [(len(x), x.sum(axis=0, dtype=np.float64)) for x, _ in pairs()]
        n = sum(n for n, _ in sums)
        mean = np.asarray(sum(total for _, total in sums)) / n
        products = np.zeros((len(mean), len(mean)))
        crossed: np.ndarray | float = 0.0
        for x, y in pairs():  # a second pass: the mean may be large compared with the variance
            centred = x - mean
            products += centred.T @ centred / n
            crossed = crossed + centred.T @ y / n
        variance = np.trace(products) / len(mean)
        penalty = strength * variance if variance > 0 else 1.0  # vectors that do not vary
        solved = linalg.solve(products + penalty * np.eye(len(mean)), crossed, assume_a="pos")
    return Whitening(mean.astype(np.float32), solved.astype(np.float32))
