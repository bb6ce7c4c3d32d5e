"""Reads a release by itself: its tables, and the whole of it in place of a dataset's outputs.

Letters: I items, U users, F width of features, D width of embeddings.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.release import manifest as manifests
from pipeline.release import semantic_ids
from pipeline.release.manifest import Manifest
from pipeline.release.verify import verify
from pipeline.semantic_ids.files import IDS


class Release:
    """A release folder. Nothing in it is trusted; `verified` checks all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = manifests.load(folder)

    def verified(self) -> Self:
        for _ in verify(self.folder):
            pass
        return self

    @cached_property
    def items(self) -> pa.Table:
        self.refuse_without("items")
        return io.read_table(self.folder / "items.parquet", schemas.RELEASED_ITEMS)

    @property
    def feature_sets(self) -> list[str]:
        return self._sets("features")

    def features(self, name: str) -> pa.Table:
        """Return a feature set, schema features(F), I rows in item order; UserError names those there."""
        if name not in self.feature_sets:
            raise UserError(f"{self.folder}: no feature set '{name}'; there are {', '.join(self.feature_sets)}")
        return io.read_features(self.folder / "features" / name)

    def semantic_ids(self, name: str, method: str | None = None) -> pa.Table:
        """Return the codes of a feature set, schema semantic_ids(L), I rows; UserError names those there."""
        path = semantic_ids.folder_of(self.folder, self.manifest, name, method) / IDS
        return io.read_table(path, schemas.semantic_ids(pq.read_schema(path).field("codes").type.list_size))

    def edges(self, name: str) -> pa.Table:
        """Return the nearest neighbours under a feature set, table EDGES; UserError names the graphs there."""
        if name not in (graphs := self._sets("edges")):
            raise UserError(f"{self.folder}: no graph of '{name}'; there are {', '.join(graphs) or 'none'}")
        return io.read_table(self.folder / "graph" / name / "edges.parquet", schemas.EDGES)

    def embeddings(self, what: str) -> pa.Table:
        """Return the trained recommender's vectors of `items` or `users`; UserError where it has none.

        Those of users have no column `user` in a release that names no user.
        """
        self.refuse_without("user embeddings" if what == "users" else "embeddings")
        path = self.folder / "embeddings" / f"{what}.parquet"
        kind = next(f.table for f in self.manifest.files if f.path == f"embeddings/{what}.parquet")
        schema = manifests.TABLES[str(kind)]
        return io.read_table(path, schema(pq.read_schema(path).field("vector").type.list_size))

    @property
    def interactions(self) -> pa.Table:
        self.refuse_without("interactions")
        return io.read_table(self.folder / "interactions.parquet", schemas.INTERACTIONS)

    @property
    def users(self) -> pa.Table:
        self.refuse_without("interactions")
        return io.read_table(self.folder / "users.parquet", schemas.USERS)

    def refuse_without(self, *needs: str) -> Self:
        """Return the release; UserError if it lacks one of items, interactions, embeddings, user embeddings."""
        tables = {f.table for f in self.manifest.files}
        if "items" in needs and ("items.parquet", "items") not in {(f.path, f.table) for f in self.manifest.files}:
            raise UserError(f"{self.folder}: this release has no items.parquet; fetch or publish it whole")
        if "interactions" in needs and not {"interactions", "users"} <= tables:
            raise UserError(
                f"{self.folder}: this release has no interactions, which are needed here; "
                "its publisher may set publish.interactions, if their licence allows"
            )
        if {"embeddings", "user embeddings"} & {*needs} and "item_embeddings" not in tables:
            raise UserError(f"{self.folder}: this release has no embeddings of a trained recommender")
        if "user embeddings" in needs and not tables & {*manifests.USER_VECTORS}:
            raise UserError(
                f"{self.folder}: this release has no vectors of users, which are needed here; "
                "its publisher may set publish.users"
            )
        return self

    def beside(self, root: Path) -> Layout:
        return Layout(root, self.manifest.dataset)

    def _sets(self, table: str) -> list[str]:
        return sorted({str(f.feature_set) for f in self.manifest.files if f.table == table})


@contextmanager
def unpacked(release: Release, needs: Sequence[str] = ()) -> Iterator[Layout]:
    """Yield a verified release as the stages would have left it, so that all that reads a dataset reads a release.

    Tables are linked into a temporary folder; what items need is written anew. UserError if it lacks one of
    `needs`.
    """
    release.refuse_without(*needs)
    with tempfile.TemporaryDirectory(prefix="alignrec-") as temporary:
        layout = Layout(Path(temporary), release.manifest.dataset)
        _lay_out(release, layout)
        yield layout


def _lay_out(release: Release, layout: Layout) -> None:
    folder, tables = release.folder.resolve(), {f.table for f in release.manifest.files}
    links = {folder / "features" / name: layout.features(name) for name in release.feature_sets}
    links |= {folder / "graph" / name: layout.edges(name).parent for name in release._sets("edges")}
    links |= {
        folder / manifests.SEMANTIC_IDS / name / method: layout.semantic_ids(name, method)
        for name, method in semantic_ids.names(release.manifest)
    }
    if "interactions" in tables:
        links |= {folder / "interactions.parquet": layout.interactions, folder / "users.parquet": layout.users}
    if "item_embeddings" in tables:
        links[folder / "embeddings/items.parquet"] = layout.item_embeddings
    if tables & {*manifests.USER_VECTORS}:
        links[folder / "embeddings/users.parquet"] = layout.user_embeddings
    for source, target in links.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    items = release.items
    io.write_table(items.select(schemas.ITEM_IDS.names), layout.item_ids, schemas.ITEM_IDS)
    io.write_table(_items(items), layout.items, schemas.ITEMS)


def _items(released: pa.Table) -> pa.Table:
    texts = released["text"].to_pylist()
    derived = {
        "image_urls": pa.array([[url] if url else [] for url in released["image_url"].to_pylist()]),
        "tokens": pa.array([text.count(" ") + bool(text) for text in texts], pa.int32()),
        "extra": pa.array(["{}"] * len(texts), pa.string()),
    }
    derived["image_urls"] = derived["image_urls"].cast(schemas.ITEMS.field("image_urls").type)
    return pa.table({name: derived[name] if name in derived else released[name] for name in schemas.ITEMS.names})
