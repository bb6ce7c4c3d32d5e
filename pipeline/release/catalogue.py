"""Releases of a whole catalogue: items of the k-core first, then those that `items.all` adds.

Only the first ones have interactions and vectors of the recommender. Feature sets, graph and
semantic IDs cover all, and no file of a feature set has items of both kinds.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.manifest import Counts, Manifest
from alignrec.pipeline.runtime.layout import FURTHER_STEM, Layout


def refuse_uncovered(layout: Layout, names: Sequence[str], key: str = "publish.features") -> None:
    """Raise UserError for a set that lacks the items of `items.all`, or has others."""
    if not layout.further_items.is_file():
        return
    expected = io.rows([layout.further_items])
    for name in names:
        further = FeatureSet.of(layout, name).further()
        if further is None:
            raise UserError(
                f"'{key}': {name} has no vectors of the items that items.all adds; "
                "leave it out, or leave items.all out"
            )
        if io.rows(further.shards) != expected:
            raise UserError(
                f"{further.folder}: vectors of other items than {layout.further_items}; "
                "run `dvc repro`"
            )
        for core, whole in (
            (layout.edges, layout.catalogue_edges),
            (layout.codes, layout.catalogue_codes),
        ):
            if core(name).is_file() and not whole(name).is_file():
                raise UserError(f"{core(name)}: lacks the items of items.all; run `dvc repro`")


def list_items(layout: Layout) -> list[tuple[Path, list[Path]]]:
    """Return the tables of items in order, each with the files of their images."""
    tables = [(layout.items, "images")]
    if layout.further_items.is_file():
        tables.append((layout.further_items, FURTHER_STEM))
    return [(path, sorted(layout.images.glob(f"{stem}-*.parquet"))) for path, stem in tables]


def lacks_further(layout: Layout, name: str) -> bool:
    """Return whether a set has no vectors of the items that `items.all` adds."""
    has_further = layout.further_items.is_file()
    return has_further and FeatureSet.of(layout, name).further() is None


def list_feature_files(layout: Layout, name: str) -> list[Path]:
    """Return the files of a set in item order: of the k-core, then of further items."""
    features = FeatureSet.of(layout, name)
    further = features.further() if layout.further_items.is_file() else None
    return [*features.shards, *(further.shards if further else ())]


def find_edges(layout: Layout, name: str) -> Path:
    """Return the graph of all items."""
    path = layout.catalogue_edges if layout.further_items.is_file() else layout.edges
    return path(name)


def find_codes(layout: Layout, name: str) -> Path:
    """Return the semantic IDs of all items."""
    path = layout.catalogue_codes if layout.further_items.is_file() else layout.codes
    return path(name)


def count_core(layout: Layout) -> int | None:
    """Return the items with interactions; None if the release has no others."""
    if not layout.further_items.is_file():
        return None
    return io.rows([layout.item_ids])


def core_of(counts: Counts) -> int:
    return counts.items if counts.core is None else counts.core


def core_files(folder: Path, manifest: Manifest, name: str) -> list[Path]:
    """Return the files of a feature set that have the items with interactions.

    Raises UserError if a file has other items too.
    """
    left = core_of(manifest.counts)
    paths = []
    for path in manifest.paths_of(folder, "features", name):
        if not left:
            break
        rows = pq.read_metadata(path).num_rows
        if rows > left:
            raise UserError(
                f"{path}: has items with and without interactions; publish the release again"
            )
        left -= rows
        paths.append(path)
    return paths
