"""What a release has of the trained recommender: embeddings, and an index of those of the items."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.interactions import split
from pipeline.layout import Layout, Piece
from pipeline.train import recommend, retrieval


def embeddings(layout: Layout, users: bool) -> Iterator[Piece]:
    if layout.item_embeddings.exists():
        yield Piece("embeddings/items.parquet", layout.item_embeddings, "item_embeddings")
    if users and layout.user_embeddings.exists():
        yield Piece("embeddings/users.parquet", layout.user_embeddings, "user_embeddings")


def index(layout: Layout, interactions: pa.Table, exact_up_to: int) -> Iterator[Piece]:
    """Yield a FAISS index of the item vectors and its facts, such as its recall; nothing where train has not run."""
    if not layout.item_embeddings.exists():
        return
    user, item = recommend.vectors(layout)
    made = retrieval.build(item, exact_up_to)
    facts = retrieval.tune(made, item, user, split.load(interactions, len(user), len(item)).train)
    yield Piece("embeddings/items.faiss", retrieval.to_bytes(made))
    yield Piece("embeddings/index.json", facts)
