"""What the training of a recommender takes from an earlier release, which is untrusted."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models.training.start import Start
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.read import Release

START_KEY = "train.start"


def read_start(folder: Path, width: int) -> Start:
    """Verify a release and read the vectors that training starts from, float32 [n, width].

    UserError if it is damaged, has no vectors, or has vectors of another width.
    """
    release = Release(folder).refuse_without("items", "embeddings").verify()
    items = release.embeddings("items")
    _refuse_other_width(items, folder, width)
    users = None
    if "user_embeddings" in release.tables:  # others have no names
        users = release.embeddings("users").select(["user", "vector"])
        _refuse_other_width(users, folder, width)
    return Start(
        manifest=io.sha256(folder / manifests.MANIFEST_FILE),
        items=items.select(["asin", "vector"]),
        users=users,
        pairs=_read_pairs(release),
    )


def _refuse_other_width(table: pa.Table, folder: Path, width: int) -> None:
    found = table["vector"].type.list_size
    if found != width:
        raise UserError(
            f"'{START_KEY}': {folder} has vectors of {found} numbers, and train.dim is {width}; "
            f"give 'train.dim: {found}', or leave {START_KEY} out"
        )


def _read_pairs(release: Release) -> pa.Table | None:
    """Return the train pairs by name: columns user and asin; None if they are not released."""
    if not {"interactions", "users"} <= release.tables:
        return None
    interactions = release.interactions
    rows = interactions.filter(np.equal(interactions["split"].to_numpy(), schemas.TRAIN))
    users = release.users["user"].take(rows["user_id"])
    return pa.table({"user": users, "asin": release.items["asin"].take(rows["item_id"])})
