"""Read access to a release: its tables, or the whole release as a dataset layout."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import Manifest
from alignrec.pipeline.release.verify import verify

# need -> alternative sets of tables that meet it, and the end of the error message if none is present
NEEDS: dict[str, tuple[list[set[str]], str]] = {
    "items": ([{"items"}], "items.parquet; fetch or publish it whole"),
    "interactions": (
        [{"interactions", "users"}],
        "interactions, which are needed here; its publisher may set publish.interactions, if their licence allows",
    ),
    "embeddings": ([{"item_embeddings"}], "embeddings of a trained recommender"),
    "user embeddings": (
        [{kind} for kind in manifests.USER_VECTORS],
        "vectors of users, which are needed here; its publisher may set publish.users",
    ),
}


class Release:
    """An untrusted release folder; accessors raise UserError for tables it lacks, `verify` checks everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = manifests.load(folder)
        self.tables = {f.table for f in self.manifest.files if f.table}

    def verify(self) -> Self:
        verify(self.folder)
        return self

    @cached_property
    def items(self) -> pa.Table:
        self.refuse_without("items")
        return io.read_table(self.folder / "items.parquet", schemas.RELEASED_ITEMS)

    @property
    def feature_sets(self) -> list[str]:
        return self.manifest.sets_with("features")

    def features(self, name: str) -> pa.Table:
        return io.read_features(self._list_files("features", "feature set", name)[0].parent)

    def semantic_ids(self, name: str) -> pa.Table:
        return io.read_codes(self._list_files("semantic_ids", "semantic IDs of", name)[0])

    def edges(self, name: str) -> pa.Table:
        return io.read_table(self._list_files("edges", "graph of", name)[0], schemas.EDGES)

    def _list_files(self, table: str, what: str, name: str) -> list[Path]:
        if not (paths := self.manifest.paths_of(self.folder, table, name)):
            there = ", ".join(self.manifest.sets_with(table)) or "none"
            raise UserError(f"{self.folder}: no {what} '{name}'; there are {there}")
        return paths

    def embeddings(self, what: str) -> pa.Table:
        """Return the recommender's vectors of `items` or `users`; users have a name column only if they are named."""
        self.refuse_without("embeddings", *["user embeddings"] * (what == "users"))
        path = self.folder / f"embeddings/{what}.parquet"
        kind = next(f.table for f in self.manifest.files if self.folder / f.path == path)
        schema = manifests.TABLES[str(kind)].schema
        assert schema is not None
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
        """Return self; UserError if one of `needs` (keys of NEEDS) is missing."""
        for need in needs:
            accepted, lack = NEEDS[need]
            if not any(kinds <= self.tables for kinds in accepted):
                raise UserError(f"{self.folder}: this release has no {lack}")
        return self

    def layout_under(self, root: Path) -> Layout:
        # the dataset's own outputs have what no release contains, such as images
        return Layout(root, self.manifest.dataset)


@contextmanager
def unpack_release(release: Release, needs: Sequence[str] = ()) -> Iterator[Layout]:
    """Yield a release as the layout of a dataset, in a temporary folder; UserError if one of `needs` is missing."""
    tables = release.refuse_without(*needs).tables
    with tempfile.TemporaryDirectory(prefix="alignrec-") as temporary:
        layout = Layout(Path(temporary), release.manifest.dataset)
        # tables are linked, not copied; those of items have another schema and are rewritten below
        links = {f"features/{name}": layout.features(name) for name in release.feature_sets}
        links |= {f"graph/{name}": layout.edges(name).parent for name in release.manifest.sets_with("edges")}
        if "interactions" in tables:
            links |= {"interactions.parquet": layout.interactions, "users.parquet": layout.users}
        if "item_embeddings" in tables:
            links["embeddings/items.parquet"] = layout.item_embeddings
        if tables & {*manifests.USER_VECTORS}:
            links["embeddings/users.parquet"] = layout.user_embeddings
        for source, target in links.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(release.folder.resolve() / source)
        io.write_table(release.items.select(schemas.ITEM_IDS.names), layout.item_ids, schemas.ITEM_IDS)
        io.write_table(_item_table(release.items), layout.items, schemas.ITEMS)
        yield layout


def _item_table(released: pa.Table) -> pa.Table:
    texts = released["text"].to_pylist()
    urls = pa.array([[url] if url else [] for url in released["image_url"].to_pylist()], pa.list_(pa.string()))
    derived = {
        "image_urls": urls.cast(schemas.ITEMS.field("image_urls").type),
        "tokens": pa.array([text.count(" ") + bool(text) for text in texts], pa.int32()),
        "extra": pa.array(["{}"] * len(texts), pa.string()),
    }
    return pa.table({name: derived[name] if name in derived else released[name] for name in schemas.ITEMS.names})
