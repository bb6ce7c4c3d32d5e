"""What data sets hold, and what their releases carry: a row a data set, and a row a feature set of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.facts.table import Table
from pipeline.layout import Layout
from pipeline.release.manifest import File
from pipeline.release.read import Release


def sizes(layouts: Sequence[Layout]) -> Table:
    """Return users, items, interactions, density, lengths, and the share of items with text and with an image."""
    return Table(
        "Data sets",
        "After filtering. Density: interactions over users x items. Lengths: interactions of a user and of an item, "
        "median and most; words of a text, median. Texts and images: share of the items; of a source that brings "
        "vectors alone there are none.",
        ["data set", "users", "items", "interactions", "density", "of a user", "of an item", "with text", "words",
         "with image"],
        [_size(layout) for layout in layouts],
    )  # fmt: skip


def _size(layout: Layout) -> list[str]:
    pairs = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id"])
    users, items = (
        len(io.read_table(*of)) for of in ((layout.users, schemas.USERS), (layout.item_ids, schemas.ITEM_IDS))
    )
    texts = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"].to_pylist() if layout.items.is_file() else []
    words = [n for text in texts if (n := len(text.split()))]
    seen = [
        pq.read_table(path, columns=["status"])["status"] for path in sorted(layout.images.glob("images-*.parquet"))
    ]
    images = sum(pc.sum(pc.equal(status, "ok")).as_py() or 0 for status in seen)
    return [
        layout.dataset, f"{users:,}", f"{items:,}", f"{len(pairs):,}", f"{len(pairs) / (users * items):.3%}",
        *(_lengths(pairs[column]) for column in ("user_id", "item_id")),
        f"{len(words) / items:.1%}" if words else "", f"{np.median(words):.0f}" if words else "",
        f"{images / items:.1%}" if images else "",
    ]  # fmt: skip


def _lengths(ids: pa.ChunkedArray) -> str:
    lengths = np.bincount(ids.to_numpy())
    return f"{np.median(lengths[lengths > 0]):.0f}, {lengths.max():,}"


def released(layouts: Sequence[Layout]) -> Table:
    """Return width, rows, bytes and place of each feature set in each release."""
    rows = [row for layout in layouts for row in _released(Release(layout.release))]
    return Table(
        "Feature sets of the releases",
        "Bytes are of the Parquet files of the vectors and of the item graph, as the manifests list them; every file "
        "there has its sha256.",
        ["release", "feature set", "items", "width", "vectors, bytes", "graph, bytes", "where"],
        rows,
        texts=2,
    )


def _released(release: Release) -> Iterator[list[str]]:
    manifest = release.manifest
    for name in release.feature_sets:
        files = [file for file in manifest.files if file.feature_set == name]
        vectors, edges = ([file for file in files if file.table == table] for table in ("features", "edges"))
        yield [
            f"{manifest.dataset} {manifest.version}", name, f"{sum(file.rows or 0 for file in vectors):,}",
            str(_width(vectors[0])), *(f"{sum(file.bytes for file in part):,}" for part in (vectors, edges)),
            f"`{vectors[0].path.rpartition('/')[0]}/`",
        ]  # fmt: skip


def _width(file: File) -> int:
    (kind,) = (column.type for column in file.columns or [] if column.name == "vector")
    return int(kind.rpartition("[")[2].rstrip("]"))
