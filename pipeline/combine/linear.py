"""Feature set `linear`: all parts reduced by PCA to one vector (n items per shard, F width)."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encode.folder import FeatureSet, joinable_blocks
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.ops import linalg
from alignrec.pipeline.ops.linalg import IMAGE, POWER, Block, JoinedMap

DRAWS = 5  # splits into cold and warm items; each item is cold in one
K = 20


class Way(NamedTuple):
    """Settings that validation chooses."""

    power: float  # each direction of a part is divided by its standard deviation to this power
    image: float  # weight of image-only columns, compared with 1 for all others
    reduced: bool  # whether PCA reduces all parts together to one width


# validation only chooses among these: the maps are not fitted to interactions
WAYS = [Way(*way) for way in product((POWER, 0.3), (IMAGE, 0.3, 1.0), (True, False))]


def fit_linear(layout: Layout, parts: Sequence[FeatureSet], width: int) -> tuple[JoinedMap, Way]:
    """Fit the way that is best on validation, otherwise the first; raises UserError if no part distinguishes items."""
    kept = [part.distinguishes() for part in parts]
    if not any(kept):
        raise UserError(f"none of {', '.join(part.name for part in parts)} distinguishes items; leave it out")
    scores = _score_ways(layout, parts, kept, width) if layout.interactions.is_file() else []
    way = WAYS[int(np.argmax(scores)) if scores else 0]
    chosen = joinable_blocks(parts, kept, way.image)
    return linalg.fit_blocks(lambda: read_parts(parts), chosen, width, way.power, way.reduced), way


def read_parts(parts: Sequence[FeatureSet]) -> Iterator[list[np.ndarray]]:
    """Yield the vectors of all parts, float32 [n, F] each, shard by shard."""
    yield from (list(shard) for shard in zip(*(part.vectors() for part in parts), strict=True))


def _score_ways(layout: Layout, parts: Sequence[FeatureSet], kept: Sequence[bool], width: int) -> list[float]:
    """Return a score per way: the geometric mean of warm and cold content-neighbour recall; none without validation."""
    from alignrec.pipeline.interactions import profiles  # loads SciPy

    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
    user, item, split = (rows[column].to_numpy() for column in ("user_id", "item_id", "split"))
    has, finds = ((user[split == part], item[split == part]) for part in (schemas.TRAIN, schemas.VALID))
    warm = profiles.build_profiles(has, finds, profiles.draw_users(finds[0], n_items, 0), n_items)
    if not len(warm.user):
        return []
    cold = profiles.cold_draws(has, finds, n_items, DRAWS)
    whole = joinable_blocks(parts, kept, IMAGE)
    columns = (np.concatenate([x[block.part][:, block.columns] for x in read_parts(parts)]) for block in whole)
    reduced = [linalg.whiten_rows(x, width, 0) for x in columns]  # power 0: each way applies its own
    scores = []
    for way in WAYS:
        weights = [way.image if block.weight == IMAGE else block.weight for block in whole]
        own = [Block(i, np.ones(x.shape[1], bool), weights[i]) for i, x in enumerate(reduced)]
        joined = linalg.fit_blocks(lambda: [reduced], own, width, way.power, way.reduced)(reduced)
        of_all = float(np.nanmean(warm.recalls(joined, K)))
        of_cold = np.nanmean(profiles.cold_recalls(cold, joined, K), axis=1).mean() if cold else of_all
        scores.append(round(float(np.sqrt(of_all * of_cold)), 6))
    return scores
