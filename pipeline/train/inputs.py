"""What recommenders are trained on: the split, and at most one feature set with its graph."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

import schemas
from pipeline import io
from pipeline.interactions import split
from pipeline.layout import Layout


class TrainingData(NamedTuple):
    """One dataset with at most one feature set."""

    split: split.Split
    features: np.ndarray | None  # float32 [I, F]
    edges: pa.Table | None  # schema EDGES


def files(layout: Layout, features: str | None) -> list[Path]:
    """Return the files that `read` reads."""
    tables = [layout.interactions, layout.users, layout.item_ids]
    return (
        tables
        if features is None
        else [*tables, layout.edges(features), *io.shards(layout.features(features), "features")]
    )


def read(layout: Layout, features: str | None) -> TrainingData:
    """Read the split, of a large catalogue see `split.asked`, and, unless None, one feature set with its graph."""
    users = io.read_table(layout.users, schemas.USERS, ["user_id"])
    items = io.read_table(layout.item_ids, schemas.ITEM_IDS, ["item_id"])
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS)
    parts = split.asked(split.load(interactions, len(users), len(items)))
    if features is None:
        return TrainingData(parts, None, None)
    vectors, edges = io.map_features(layout.features(features)), io.read_table(layout.edges(features), schemas.EDGES)
    return TrainingData(parts, vectors, edges)
