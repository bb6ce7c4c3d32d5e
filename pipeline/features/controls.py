"""Control sets: random, shuffled, constant; upper bounds: planted, leaked (I items, n per shard, F width)."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset.cooccurrence import user_item_matrix
from alignrec.pipeline.features.folder import FeatureSet, feature_rows
from alignrec.pipeline.features.maps import collaborative_factors
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import random_vectors, shuffled_order
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources.base import PLANTED
from alignrec.pipeline.sources.shoppers import COARSE, MOTIVES

WIDTH = 64  # if the dataset has no other feature set
TOGETHER = 8  # shards that `shuffled` permutes together, which bounds memory


def control_rows(
    name: str, ids: pa.Table, original: FeatureSet | None, rows: int, seed: int
) -> Iterator[pa.Table]:
    """Yield the shards of a control, `rows` items each, as wide as `original` if there is one."""
    if name != "shuffled" or original is None:
        width = WIDTH if original is None else original.width
        for number, start in enumerate(range(0, len(ids), rows)):
            own = ids.slice(start, rows)
            shape = len(own), width
            vectors = (
                np.ones(shape, np.float32)
                if name == "constant"
                else random_vectors(*shape, [seed, number])
            )
            yield feature_rows(own, vectors, *np.zeros((2, len(own)), bool))
        return
    order = np.random.default_rng(seed).permutation(-(-len(ids) // rows))
    groups = [np.sort(group) for group in np.array_split(order, -(-len(order) // TOGETHER))]
    group_of = {shard: number for number, group in enumerate(groups) for shard in group.tolist()}
    for shard, start in enumerate(range(0, len(ids), rows)):
        number, own = group_of[shard], ids.slice(start, rows)
        members = groups[number].tolist()
        all_rows = pa.concat_tables(original.read(one) for one in members)
        first = rows * members.index(shard)
        taken = all_rows.take(
            shuffled_order(len(all_rows), [seed, number])[first : first + len(own)]
        )
        yield feature_rows(own, io.matrix(taken["vector"]), taken["has_image"], taken["has_text"])


def leaked_factors(layout: Layout, width: int, seed: int) -> np.ndarray:
    """Return factors of all interactions, those of test included, float32 [I, F]."""
    n_items = len(io.read_table(layout.item_ids, schemas.ITEM_IDS))
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id"])
    matrix = user_item_matrix(rows["user_id"].to_numpy(), rows["item_id"].to_numpy(), n_items)
    return collaborative_factors(matrix, width, seed).astype(np.float32)


def planted_halves(layout: Layout) -> dict[str, np.ndarray]:
    """Return indicators by modality, float32 [I, F] each; raises UserError if the dataset is not generated."""
    path = layout.raw / PLANTED
    if not path.is_file():
        raise UserError(f"{layout.dataset} is not generated; leave planted out")
    known, ids = (
        io.read_table(path, schemas.PLANTED),
        io.read_table(layout.item_ids, schemas.ITEM_IDS),
    )
    row = {asin: i for i, asin in enumerate(known["asin"].to_pylist())}
    place = np.array([row[asin] for asin in ids["asin"].to_pylist()], np.int64)
    # Users of a generated catalogue choose by theme (subcategory) or look (colour and shape), sometimes by the coarser
    # category or colour. With these weights, the dot product of two items is the probability that a user who chose one
    # chooses the other, apart from popularity.
    theme, look, _ = MOTIVES
    text = [
        _scaled_indicators(known, "subcategory", theme),
        _scaled_indicators(known, "category", COARSE * theme),
    ]
    image = [
        _scaled_indicators(known, "look", look),
        _scaled_indicators(known, "colour", COARSE * look),
    ]
    return {"text": np.hstack(text)[place], "image": np.hstack(image)[place]}


def _scaled_indicators(rows: pa.Table, column: str, weight: float) -> np.ndarray:
    """Return a column per value, float32 [n, values], whose squares sum to `weight`."""
    number = rows[column].to_numpy()
    size = np.bincount(number)
    return (
        np.eye(len(size), dtype=np.float32)[number]
        * np.sqrt(weight / size[number]).astype(np.float32)[:, None]
    )
