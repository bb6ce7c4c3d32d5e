"""Reading a release: `alignrec.load`. Letters: I items, U users, F width of features, D width of embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache as remember
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import platformdirs
import pyarrow as pa

from alignrec.pipeline import io
from alignrec.pipeline.config.base import nearest
from alignrec.pipeline.errors import UserError, not_installed
from alignrec.pipeline.harness.progress import bytes_bar
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import read, verify
from alignrec.pipeline.release.manifest import Manifest
from alignrec.pipeline.remote import fetch as fetching
from alignrec.pipeline.remote import stores
from alignrec.vectors import Vectors

if TYPE_CHECKING:
    import scipy.sparse as sp

Part = TypeVar("Part")

PREFERRED = ("beit3", "linear")
"""feature sets that are read where none is named: the first of them that a release has, else its first"""


class Embeddings(NamedTuple):
    """The vectors of the trained recommender; score = dot product."""

    users: Vectors
    """float32 [U, D]; ids are the users', or their numbers where the release names no user"""
    items: Vectors
    """float32 [I, D]; ids are the items'"""


class Parts(Mapping[str, Part]):
    """Feature set -> part of a release, read on first access."""

    def __init__(self, names: Iterable[str], read: Callable[[str], Part]) -> None:
        self._names, self._read = sorted(names), remember(read)

    def __getitem__(self, name: str) -> Part:
        if name not in self:
            raise UserError(f"no feature set '{name}' in this release{nearest(name, self._names)}")
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<of {', '.join(self) or 'no feature set'}>"


@dataclass(frozen=True, eq=False, repr=False)
class Release:
    """A verified release. Its tables are read on first access."""

    folder: Path
    info: Manifest
    """dataset, version, counts, files with their hashes, and what made them"""

    @cached_property
    def items(self) -> pa.Table:
        """Schema RELEASED_ITEMS: asin, title, categories, text, ... of item 0 .. I-1."""
        return self._tables.items

    @cached_property
    def features(self) -> Mapping[str, Vectors]:
        """Feature set -> float32 [I, F]; `ids` are the items' asins."""
        return Parts(self._tables.feature_sets, lambda name: _as_vectors(self._tables.features(name)))

    @cached_property
    def graph(self) -> Mapping[str, sp.csr_array]:
        """Feature set -> float32 [I, I], sparse (SciPy): the cosine of each item and its nearest, itself included."""
        return Parts(self.info.sets_with("edges"), self._read_graph)

    @cached_property
    def embeddings(self) -> Embeddings:
        """The vectors of the trained recommender; UserError if the release has none, or none of users."""
        return Embeddings(_as_vectors(self._tables.embeddings("users")), self.item_embeddings)

    @cached_property
    def item_embeddings(self) -> Vectors:
        """The trained recommender's vectors of items, float32 [I, D]; UserError if the release has none."""
        return _as_vectors(self._tables.embeddings("items"))

    def vector(self, asin: str, features: str | None = None) -> np.ndarray:
        """Return the vector of one item, float32 [F], of a feature set, by default as PREFERRED says."""
        return self.features[features or self._default_set()].of(asin)

    def _default_set(self) -> str:
        return next((name for name in (*PREFERRED, *self.features) if name in self.features), PREFERRED[0])

    def semantic_ids(self, features: str | None = None) -> pa.Table:
        """Return the semantic IDs of a feature set: columns item_id, asin, codes, suffix, ... of item 0 .. I-1.

        `codes` are a list of int32 per item, null for an item without content; `suffix` separates items of equal codes.
        UserError if the feature set has none.
        """
        return self._tables.semantic_ids(features or self._default_set())

    def __repr__(self) -> str:
        counts = f"{self.info.counts.items:,} items, {self.info.counts.users:,} users"
        return f"<Release {self.info.dataset} {self.info.version}: {counts}, features {', '.join(self.features)}>"

    @cached_property
    def _tables(self) -> read.Release:
        return read.Release(self.folder)

    def _read_graph(self, name: str) -> sp.csr_array:
        try:
            import scipy.sparse as sp
        except ModuleNotFoundError as e:
            raise (not_installed(e) or e) from None
        edges = self._tables.edges(name)
        item, neighbour, cosine = (edges[c].to_numpy() for c in ("item_id", "neighbour_id", "cosine"))
        return sp.csr_array((cosine, (item, neighbour)), shape=(self.info.counts.items,) * 2)


def load(
    release: str | Path, features: str | None = None, *, cache: str | Path | None = None, key: str | Path | None = None
) -> Release:
    """Return a release after checking every byte.

    Args:
        release: a folder, or an address: https://, s3:// or hf://datasets/owner/name/path; or `sample`, the small
            release in the package, unless a folder has that name. An address is fetched into the cache once; an
            interrupted fetch resumes.
        features: the only feature set to fetch from an address.
        cache: folder for fetched releases; by default `alignrec` in the user's cache folder.
        key: public SSH key (.pub) that must have signed the release.

    Raises:
        UserError: there is no release, it cannot be reached, or something in it is missing, damaged or forged.
    """
    address = str(release)
    if stores.is_archive(address):
        raise UserError("a zip file is not read in place: `alignrec fetch` makes a folder of it, and checks it")
    is_local = stores.scheme_of(address) == "file" and stores.resolve_sample(address) == address
    kept = Path(cache) if cache else platformdirs.user_cache_path("alignrec")
    folder = stores.path_of(address) if is_local else _fetch_to_cache(address, features, kept)
    if is_local or key is not None:  # a fetch verifies everything but the signer
        verify(folder, Path(key) if key else None)
    info = manifests.load(folder)
    _check_features(info, features)
    return Release(folder, info)


def _fetch_to_cache(address: str, features: str | None, cache: Path) -> Path:
    info, sha256 = fetching.read_remote_manifest(address)
    _check_features(info, features)
    folder = cache / "releases" / (f"{sha256}-{features}" if features else sha256)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with bytes_bar("fetch") as progress:
        fetching.fetch(address, folder, features, progress)
    # a release that is replaced between two requests must not be cached under the first's hash
    if sha256 not in (io.sha256(folder / manifests.NAME), manifests.load(folder).part_of) and not info.part_of:
        shutil.rmtree(folder)
        raise UserError(
            f"{stores.open_store(address).address}: the release changed while it was fetched; load it again"
        )
    return folder


def _check_features(info: Manifest, features: str | None) -> None:
    if features is not None and features not in (names := info.sets_with("features")):
        raise UserError(f"no feature set '{features}' in this release{nearest(features, names)}")


def _as_vectors(table: pa.Table) -> Vectors:
    ids = next(name for name in ("asin", "user", "user_id") if name in table.column_names)
    return Vectors(io.matrix(table["vector"]), table[ids].to_pylist())
