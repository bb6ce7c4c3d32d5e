"""Read an untrusted release folder: verify it, open tables, or unpack it as a dataset's layout."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features.codebooks import CODEBOOKS_FILE, read_codebooks
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.release import encoder, signature, tables
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.catalogue import core_files, core_of
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.table_kinds import TABLES, USER_VECTORS
from alignrec.pipeline.runtime.layout import Layout

MAX_LISTED = 5  # maximum faults listed in an error
MAX_PROMPT_SHOWN = 200  # characters
ITEMS_FILE = "items.parquet"
# files that Git and the Hub's client leave in the top folder; not part of a release
TOOLS = (".git", ".gitattributes", ".cache")
# need -> alternative sets of tables that meet it, and the end of the message without any of them
NEEDS: dict[str, tuple[list[set[str]], str]] = {
    "items": ([{"items"}], "items.parquet; fetch or publish it whole"),
    "interactions": (
        [{"interactions", "users"}],
        "interactions, which are needed here; its publisher may set publish.interactions, "
        "if their licence allows",
    ),
    "embeddings": ([{"item_embeddings"}], "embeddings of a trained recommender"),
    "user embeddings": (
        [{kind} for kind in USER_VECTORS],
        "vectors of users, which are needed here; its publisher may set publish.users",
    ),
}


class Release:
    """An untrusted release folder; `verify` checks everything.

    Accessors raise UserError for tables that it lacks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = manifests.load(folder)
        self.tables = {file.table for file in self.manifest.list_tables()}

    def verify(self) -> Self:
        verify(self.folder)
        return self

    @cached_property
    def items(self) -> pa.Table:
        self.refuse_without("items")
        return io.read_table(self.folder / ITEMS_FILE, schemas.RELEASED_ITEMS)

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
        paths = self.manifest.paths_of(self.folder, table, name)
        if not paths:
            available = ", ".join(self.manifest.sets_with(table)) or "none"
            raise UserError(f"{self.folder}: no {what} '{name}'; there are {available}")
        return paths

    def embeddings(self, what: str) -> pa.Table:
        """Return the recommender's vectors of `items` or `users`, which may have no names."""
        self.refuse_without("embeddings")
        if what == "users":
            self.refuse_without("user embeddings")
        name = f"embeddings/{what}.parquet"
        kind = next(file.table for file in self.manifest.files if file.path == name)
        schema_of = TABLES[str(kind)].schema

        path = self.folder / name
        width = pq.read_schema(path).field("vector").type.list_size
        return io.read_table(path, schema_of(width))

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
            alternatives, lack = NEEDS[need]
            if not any(kinds <= self.tables for kinds in alternatives):
                raise UserError(f"{self.folder}: this release has no {lack}")
        return self


@contextmanager
def unpack_release(
    release: Release, needs: Sequence[str] = (), whole: bool = False
) -> Iterator[Layout]:
    """Yield a release as a dataset's layout in a temporary folder.

    It has the items with interactions, which are judged, and no graph if there are others; or the
    `whole` catalogue, to be shown. Raises UserError if one of `needs` is missing.
    """
    release.refuse_without(*needs)
    with tempfile.TemporaryDirectory(prefix="alignrec-") as temporary:
        layout = Layout(Path(temporary), release.manifest.dataset)
        # tables are linked, not copied, but those of items have another schema
        for source, target in _list_links(release, layout, whole).items():
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(release.folder.resolve() / source, target)
        items = release.items
        if not whole:
            items = items.slice(0, core_of(release.manifest.counts))
        io.write_table(items.select(schemas.ITEM_IDS.names), layout.item_ids, schemas.ITEM_IDS)
        io.write_table(_restore_items(items), layout.items, schemas.ITEMS)
        yield layout


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # as on Windows, where links need a privilege
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, target)


def _list_links(release: Release, layout: Layout, whole: bool) -> dict[str, Path]:
    """Return path in the release -> path in the layout."""
    links: dict[str, Path] = {}
    is_whole = whole or release.manifest.counts.core is None
    for name in release.feature_sets:
        folder = layout.features(name)
        if is_whole:
            links[f"features/{name}"] = folder
            continue
        for path in core_files(release.folder, release.manifest, name):
            links[path.relative_to(release.folder).as_posix()] = folder / path.name
    for name in release.manifest.sets_with("edges"):
        if is_whole:
            links[f"graph/{name}"] = layout.edges(name).parent
    if "interactions" in release.tables:
        links["interactions.parquet"] = layout.interactions
        links["users.parquet"] = layout.users
    if "item_embeddings" in release.tables:
        links["embeddings/items.parquet"] = layout.item_embeddings
    if not release.tables.isdisjoint(USER_VECTORS):
        links["embeddings/users.parquet"] = layout.user_embeddings
    return links


def _restore_items(items: pa.Table) -> pa.Table:
    """Return the items of a release in schema ITEMS, as far as they are released."""
    urls = [[url] if url else [] for url in items["image_url"].to_pylist()]
    texts = items["text"].to_pylist()
    tokens = [text.count(" ") + bool(text) for text in texts]
    restored = {
        "image_urls": pa.array(urls, schemas.ITEMS.field("image_urls").type),
        "tokens": pa.array(tokens, pa.int32()),
        "extra": pa.array(["{}"] * len(texts), pa.string()),
    }
    names = schemas.ITEMS.names
    return pa.table({name: restored[name] if name in restored else items[name] for name in names})


def codebooks_path(name: str) -> str:
    """Path of the codebooks of a feature set within a release."""
    return f"semantic_ids/{name}/{CODEBOOKS_FILE}"


def verify(folder: Path, key: Path | None = None) -> list[str]:
    """Verify a release folder, and its signature by `key` if given; return a line per check.

    Checks signature, manifest, files present, sizes and hashes, tables and encoders, in this
    order; UserError lists up to MAX_LISTED faults of the first check that fails.
    """
    folder = Path(folder)
    raw = manifests.read(folder)
    signed = signature.check(folder, raw, key)
    manifest = manifests.parse(folder, raw)
    _refuse_faults("not as the manifest lists them", _stray_files(folder, manifest))
    refuse_damaged(folder, manifest.files)
    for find_faults in (tables.find_faults, encoder.find_faults, _find_mixed):
        _refuse_faults("not what the schemas say", [*find_faults(folder, manifest)])

    total = sum(file.bytes for file in manifest.files)
    counts = manifest.counts
    lines = [
        f"{folder}: {manifest.dataset} {manifest.version}, {len(manifest.files)} files",
        f"bytes and sha256 of every file agree ({total:,} bytes)",
        f"{len(manifest.list_tables())} tables keep their schemas; ids agree "
        f"({counts.items:,} items, {counts.users:,} users)",
    ]
    if counts.core is not None:
        lines.append(f"{counts.core:,} of the items have interactions, the others content only")
    lines += _describe_prompts(manifest.encoders)
    if signed:
        lines.append(signed)
    return [*lines, f"release {hashlib.sha256(raw).hexdigest()}"]


def _describe_prompts(encoders: Mapping[str, manifests.Encoder]) -> Iterator[str]:
    """Yield the prompts that vectors were made with, without which new ones do not fit."""
    for name, made_by in encoders.items():
        if made_by.prompt:
            prompt = one_line(repr(made_by.prompt), MAX_PROMPT_SHOWN)
            yield f"{one_line(name, 64)}: every text began with {prompt}"
        parts = {f"{name}: {part.name}": part for part in made_by.parts}
        yield from _describe_prompts(parts)


def _refuse_faults(what: str, faults: list[str]) -> None:
    if faults:
        raise UserError(f"release is {what}: {join_faults(faults)}")


def join_faults(faults: list[str]) -> str:
    listed = faults[:MAX_LISTED]
    if len(faults) > MAX_LISTED:
        listed.append(f"and {len(faults) - MAX_LISTED} more")
    return "; ".join(listed)


def _stray_files(folder: Path, manifest: Manifest) -> list[str]:
    listed = {file.path for file in manifest.files} | {manifests.MANIFEST_FILE}
    present = set[str]()
    faults = []
    for path in _walk_release(folder):
        name = path.relative_to(folder).as_posix()
        is_link = path.is_symlink()
        if is_link or not (path.is_file() or path.is_dir()):
            faults.append(f"{name}: neither file nor folder")
        if is_link or not path.is_dir():
            present.add(name)

    faults += [f"{name}: missing" for name in sorted(listed - present)]
    faults += [f"{name}: not in the manifest" for name in sorted(present - listed)]
    return faults


def _walk_release(folder: Path) -> Iterator[Path]:
    """Yield files and folders, without the signature and TOOLS at the top."""
    for above, names, files in os.walk(folder):
        if Path(above) == folder:
            names[:] = [name for name in names if name not in TOOLS]
            files = [name for name in files if not _is_ignored(folder / name)]
        for name in sorted(names + files):
            yield Path(above, name)


def _is_ignored(path: Path) -> bool:
    return path.name in (*TOOLS, signature.SIGNATURE_FILE) and not path.is_symlink()


def refuse_damaged(folder: Path, files: Iterable[File]) -> None:
    faults = filter(None, (_file_fault(folder / file.path, file) for file in files))
    _refuse_faults("damaged", list(faults))


def _file_fault(path: Path, file: File) -> str:
    if not path.is_file():
        return f"{file.path}: missing"
    size = path.stat().st_size
    if size != file.bytes:
        return f"{file.path}: {size} bytes, expected {file.bytes}"
    if io.sha256(path) != file.sha256:
        return f"{file.path}: changed, its sha256 is another"
    return ""


def _find_mixed(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield vectors whose files differ in fingerprint, and faults of codebooks."""
    sets: dict[str, list[Path]] = {}
    for file in manifest.files:
        if file.table in ("features", "item_embeddings", *USER_VECTORS):
            above = file.path.rpartition("/")[0]
            sets.setdefault(above, []).append(folder / file.path)

    checks: list[Callable[[], object]] = [
        partial(io.require_same_space, paths) for paths in sets.values()
    ]
    checks += _check_codebooks(folder, manifest)
    for check in checks:
        try:
            check()
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")


def _check_codebooks(folder: Path, manifest: Manifest) -> Iterator[Callable[[], object]]:
    listed = {file.path for file in manifest.files}
    for name in manifest.sets_with("semantic_ids"):
        path = codebooks_path(name)
        if path not in listed:
            continue
        codes = manifest.paths_of(folder, "semantic_ids", name)[0]
        levels = pq.read_schema(codes).field("codes").type.list_size
        shards = manifest.paths_of(folder, "features", name)
        width = io.width(shards[0].parent) if shards else None
        yield partial(read_codebooks, folder / path, levels, width)
