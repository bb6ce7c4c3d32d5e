"""Read a release: `alignrec.load`. I items, U users, F width of features, D width of embeddings."""

from __future__ import annotations

import atexit
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache as remember
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import platformdirs
import pyarrow as pa
from filelock import FileLock, Timeout

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, not_installed
from alignrec.pipeline.release import fetch as fetching
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import read, stores
from alignrec.pipeline.runtime.progress import bytes_bar
from alignrec.pipeline.runtime.section import nearest
from alignrec.vectors import Vectors

if TYPE_CHECKING:
    import scipy.sparse as sp

Part = TypeVar("Part")

LONGEST_WAIT = 3600  # seconds to wait for another process that fills the cache
PREFERRED = (
    "beit3",
    "linear",
)  # default feature sets, in order of preference; otherwise the first of the release


class Embeddings(NamedTuple):
    """Vectors of the trained recommender; score = dot product."""

    users: Vectors
    """float32 [U, D]; `ids` are the user identifiers, or row numbers if the release does not
    publish them"""
    items: Vectors
    """float32 [I, D]; `ids` are the asins"""


class Parts(Mapping[str, Part]):
    """Mapping from feature sets to a part of the release, which is read on first access."""

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
    """A verified release, loaded by `alignrec.load`. Tables are read on first access."""

    folder: Path
    """local folder of the release"""
    info: manifests.Manifest
    """manifest: dataset, version, counts, files with their hashes, and provenance"""

    @cached_property
    def items(self) -> pa.Table:
        """Item table (schema RELEASED_ITEMS): asin, title, categories, text, ... of
        items 0 .. I-1.
        """
        return self._tables.items

    @cached_property
    def features(self) -> Mapping[str, Vectors]:
        """Vectors of each feature set, float32 [I, F]; `ids` are the asins."""
        return Parts(
            self._tables.feature_sets, lambda name: _as_vectors(self._tables.features(name))
        )

    @cached_property
    def graph(self) -> Mapping[str, sp.csr_array]:
        """Item graph of each feature set: cosines of nearest neighbours, including the item itself,
        sparse [I, I].
        """
        return Parts(self.info.sets_with("edges"), self._read_graph)

    @cached_property
    def embeddings(self) -> Embeddings:
        """User and item vectors of the trained recommender; UserError if the release does not
        contain them.
        """
        return Embeddings(_as_vectors(self._tables.embeddings("users")), self.item_embeddings)

    @cached_property
    def item_embeddings(self) -> Vectors:
        """Item vectors of the trained recommender, float32 [I, D]; UserError if the release does
        not contain them.
        """
        return _as_vectors(self._tables.embeddings("items"))

    def vector(self, asin: str, features: str | None = None) -> np.ndarray:
        """Return the feature vector of one item, float32 [F].

        Args:
            asin: Identifier of the item; UserError if it is unknown.
            features: Feature set; by default `beit3`, `linear` or the first of the release.
        """
        return self.features[features or self._default_set()].of(asin)

    def _default_set(self) -> str:
        available = [name for name in (*PREFERRED, *self.features) if name in self.features]
        return available[0] if available else PREFERRED[0]

    def semantic_ids(self, features: str | None = None) -> pa.Table:
        """Return the semantic IDs of items 0 .. I-1: columns item_id, asin, codes, suffix, ...

        `codes` is a list of int32, null for items without content, and `suffix` distinguishes items
        with equal codes.

        Args:
            features: Feature set; by default `beit3`, `linear` or the first of the release.
                UserError if it has none.
        """
        return self._tables.semantic_ids(features or self._default_set())

    def __repr__(self) -> str:
        return (
            f"<Release {self.info.dataset} {self.info.version}: {self.info.counts.items:,} items, "
            f"{self.info.counts.users:,} users, features {', '.join(self.features)}>"
        )

    @cached_property
    def _tables(self) -> read.Release:
        return read.Release(self.folder)

    def _read_graph(self, name: str) -> sp.csr_array:
        try:
            import scipy.sparse as sp
        except ModuleNotFoundError as e:
            raise (not_installed(e) or e) from None
        edges = self._tables.edges(name)
        rows, columns = edges["item_id"].to_numpy(), edges["neighbour_id"].to_numpy()
        items = self.info.counts.items
        return sp.csr_array((edges["cosine"].to_numpy(), (rows, columns)), shape=(items, items))


def load(
    release: str | Path,
    features: str | None = None,
    *,
    cache: str | Path | None = None,
    key: str | Path | None = None,
) -> Release:
    """Load a release and verify the hash of every file.

    Args:
        release: A folder; an address (`https://`, `s3://` or `hf://datasets/owner/name/path`),
            which is downloaded to
            the cache once, resuming interrupted downloads; or `sample` for the small release in the
            package, unless there is a folder of that name.
        features: Feature set to download from an address; by default all of them.
        cache: Folder for downloaded releases. Defaults to `alignrec` in the user's cache folder.
        key: Public SSH key (.pub) that must have signed the release.

    Returns:
        The verified release.

    Raises:
        UserError: If the release does not exist, cannot be reached, or is incomplete, damaged or
            not signed by `key`.

    Examples:
        >>> release = alignrec.load("sample")
        >>> len(release.features["beit3"]) == len(release.items)
        True
    """
    address = str(release)
    folder = stores.local_path(address)
    is_local = folder is not None and folder.suffix.lower() != ".zip"
    if folder is None or not is_local:
        cache_folder = Path(cache) if cache else platformdirs.user_cache_path("alignrec")
        folder = _fetch_to_cache(address, features, cache_folder)
    if is_local or key is not None:  # a download has verified everything except the signature
        read.verify(folder, Path(key) if key else None)
    info = manifests.load(folder)
    _check_features(info, features)
    return Release(folder, info)


def _fetch_to_cache(address: str, features: str | None, cache: Path) -> Path:
    """Return the cached copy of a release; if absent or damaged, download it, one process at a
    time.
    """
    info, sha256 = fetching.read_remote_manifest(address)
    _check_features(info, features)
    name = f"{sha256}-{features}" if features else sha256
    whole = info.part_of or sha256 if features else sha256
    folder = cache / "releases" / name
    if _is_copy(folder, whole):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{name}.lock"), timeout=LONGEST_WAIT):
            if not _is_copy(folder, whole):
                shutil.rmtree(folder, ignore_errors=True)
                _fetch(address, folder, features)
    except Timeout:
        raise UserError(
            f"{folder}: another process has been filling it for an hour; stop that one"
        ) from None
    except OSError as e:
        if e.errno == errno.ENOSPC or stores.local_path(address) is None:
            raise UserError(
                f"{e.filename or folder}: {e.strerror}; name another folder with `cache`"
            ) from None
        # the cache cannot be written, but an archive is at hand: unpack it for this process
        folder = Path(tempfile.mkdtemp(prefix="alignrec-")) / name
        atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
        _fetch(address, folder, features)
    # a release that was replaced between two requests must not be cached under the hash of the
    # first
    if not _has_manifest(folder, whole):
        shutil.rmtree(folder)
        where = stores.open_store(address).address
        raise UserError(f"{where}: the release changed while it was fetched; load it again")
    return folder


def _fetch(address: str, folder: Path, features: str | None) -> None:
    with bytes_bar("fetch") as progress:
        fetching.fetch(address, folder, features, progress)


def _is_copy(folder: Path, whole: str) -> bool:
    """Return whether a folder is an intact copy, or part, of the release whose manifest has hash
    `whole`.
    """
    try:
        read.verify(folder)
    except UserError:
        return False
    return _has_manifest(folder, whole)


def _has_manifest(folder: Path, whole: str) -> bool:
    return whole in (io.sha256(folder / manifests.MANIFEST_FILE), manifests.load(folder).part_of)


def _check_features(info: manifests.Manifest, features: str | None) -> None:
    if features is not None and features not in (names := info.sets_with("features")):
        raise UserError(f"no feature set '{features}' in this release{nearest(features, names)}")


def _as_vectors(table: pa.Table) -> Vectors:
    ids = next(name for name in ("asin", "user", "user_id") if name in table.column_names)
    return Vectors(io.matrix(table["vector"]), table[ids].to_pylist())
