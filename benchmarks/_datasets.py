"""What the releases of data sets carry: a row a feature set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.facts.table import Table
from pipeline.layout import Layout
from pipeline.release.manifest import File
from pipeline.release.read import Release


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
