"""Controls, which a useful feature set must beat: random, shuffled, constant.

I items, n of a shard, F width.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.features.folder import FeatureSet, feature_rows
from alignrec.pipeline.features.kinds.base import Combination, SetKind, SetRecipe, describe
from alignrec.pipeline.linalg.projections import Seed, random_vectors, shuffled_order
from alignrec.pipeline.runtime.seeds import seed_for

DEFAULT_CONTROL_WIDTH = 64  # if the dataset has no other feature set
SHARDS_PER_GROUP = 8  # shards that `shuffled` permutes together, which bounds memory


def make_control(recipe: SetRecipe) -> Combination:
    """Make a control as wide as the dataset's first feature set, its only part."""
    seed = seed_for("encode", recipe.layout.dataset, recipe.name, recipe.seed)
    if recipe.name == "shuffled" and recipe.parts:
        return Combination(describe(recipe), shuffled_rows(recipe, recipe.parts[0], seed))

    draw = constant_vectors if recipe.name == "constant" else random_vectors
    return Combination(describe(recipe), drawn_rows(recipe, draw, seed))


def constant_vectors(items: int, width: int, seed: Seed) -> np.ndarray:
    return np.ones((items, width), np.float32)


def drawn_rows(
    recipe: SetRecipe, draw: Callable[[int, int, Seed], np.ndarray], seed: int
) -> Iterator[pa.Table]:
    width = recipe.parts[0].width if recipe.parts else DEFAULT_CONTROL_WIDTH
    for number, (_, ids) in enumerate(recipe.shards()):
        neither = np.zeros(len(ids), bool)
        yield feature_rows(ids, draw(len(ids), width, [seed, number]), neither, neither)


def shuffled_rows(recipe: SetRecipe, original: FeatureSet, seed: int) -> Iterator[pa.Table]:
    """Yield the rows of `original` in a random order, permuted within random groups of shards."""
    shards = [*recipe.shards()]
    order = np.random.default_rng(seed).permutation(len(shards))
    n_groups = -(-len(order) // SHARDS_PER_GROUP)
    groups = [np.sort(group).tolist() for group in np.array_split(order, n_groups)]
    group_of = {shard: number for number, group in enumerate(groups) for shard in group}

    for shard, (_, ids) in enumerate(shards):
        number = group_of[shard]
        members = groups[number]
        rows = pa.concat_tables(original.read(member) for member in members)
        source = shuffled_order(len(rows), [seed, number])
        first = recipe.shard_rows * members.index(shard)
        shuffled = rows.take(source[first : first + len(ids)])
        vectors = io.matrix(shuffled["vector"])
        yield feature_rows(ids, vectors, shuffled["has_image"], shuffled["has_text"])


CONTROL = SetKind("control", make_control, is_yardstick=True)
