"""What a release has of the trained recommender: embeddings, and an index of those of the items."""

from collections.abc import Iterator

import numpy as np

import schemas
from pipeline import io
from pipeline.interactions import split
from pipeline.layout import Layout, Piece
from pipeline.train import embeddings, retrieval


def pieces(layout: Layout, users: bool, exact_up_to: int) -> Iterator[Piece]:
    """Yield the vectors of items, those of `users`, and a FAISS index with its facts, such as its recall."""
    if users and layout.user_embeddings.exists():
        yield Piece("embeddings/users.parquet", layout.user_embeddings, "user_embeddings")
    if not layout.item_embeddings.exists():
        return
    yield Piece("embeddings/items.parquet", layout.item_embeddings, "item_embeddings")
    user, item = embeddings.of(layout)
    asked = np.linspace(0, len(user) - 1, min(retrieval.SAMPLE, len(user))).astype(np.int64)
    bought = io.read_slices(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"], io.PART)
    seen = split.train_of(bought, asked, len(user), len(item))
    index = retrieval.indexed(item, user.take(asked), seen, exact_up_to)
    yield Piece("embeddings/items.faiss", index.write)
    yield Piece("embeddings/index.json", index.facts)
