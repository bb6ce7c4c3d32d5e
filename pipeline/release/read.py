"""Read an untrusted release folder: verify it, open single tables, or unpack it as a dataset's layout."""

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import encoder, signature, tables
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.probes import read_probes
from alignrec.pipeline.runtime.layout import Layout

MAX_LISTED = 5  # maximum faults listed in an error
ITEMS = "items.parquet"
PROBES = "probes.json"
# files that Git and the Hub's client leave in the top folder; not part of a release
TOOLS = (".git", ".gitattributes", ".cache")
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
        self.tables = {file.table for file in self.manifest.list_tables()}

    def verify(self) -> Self:
        verify(self.folder)
        return self

    @cached_property
    def items(self) -> pa.Table:
        self.refuse_without("items")
        return io.read_table(self.folder / ITEMS, schemas.RELEASED_ITEMS)

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


@contextmanager
def unpack_release(release: Release, needs: Sequence[str] = ()) -> Iterator[Layout]:
    """Yield a release as the layout of a dataset, in a temporary folder; UserError if one of `needs` is missing."""
    tables = release.refuse_without(*needs).tables
    with tempfile.TemporaryDirectory(prefix="alignrec-") as temporary:
        layout = Layout(Path(temporary), release.manifest.dataset)
        # tables are linked, not copied; those of items have another schema and are rewritten below
        links = {f"features/{name}": layout.features(name) for name in release.feature_sets}
        links |= {
            f"graph/{name}": layout.edges(name).parent
            for name in release.manifest.sets_with("edges")
        }
        if "interactions" in tables:
            links |= {"interactions.parquet": layout.interactions, "users.parquet": layout.users}
        if "item_embeddings" in tables:
            links["embeddings/items.parquet"] = layout.item_embeddings
        if tables & {*manifests.USER_VECTORS}:
            links["embeddings/users.parquet"] = layout.user_embeddings
        for source, target in links.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(release.folder.resolve() / source)
        io.write_table(
            release.items.select(schemas.ITEM_IDS.names), layout.item_ids, schemas.ITEM_IDS
        )
        texts = release.items["text"].to_pylist()
        urls = pa.array(
            [[url] if url else [] for url in release.items["image_url"].to_pylist()],
            pa.list_(pa.string()),
        )
        derived = {
            "image_urls": urls.cast(schemas.ITEMS.field("image_urls").type),
            "tokens": pa.array([text.count(" ") + bool(text) for text in texts], pa.int32()),
            "extra": pa.array(["{}"] * len(texts), pa.string()),
        }
        columns = {
            name: derived[name] if name in derived else release.items[name]
            for name in schemas.ITEMS.names
        }
        io.write_table(pa.table(columns), layout.items, schemas.ITEMS)
        yield layout


def verify(folder: Path, key: Path | None = None) -> list[str]:
    """Verify a release folder, and its signature by `key` if given; return a line per check.

    Checks signature, manifest, files present, sizes and hashes, tables, encoders and probes, in this order; UserError
    lists up to MAX_LISTED faults of the first check that fails.
    """
    folder = Path(folder)
    raw = manifests.read(folder)
    signed = signature.check(folder, raw, key)
    manifest = manifests.parse(folder, raw)
    _refuse_faults("not as the manifest lists them", _stray_files(folder, manifest))
    refuse_damaged(folder, manifest.files)
    for check in (tables.find_faults, encoder.find_faults, _find_mixed):
        _refuse_faults("not what the schemas say", [*check(folder, manifest)])
    total, counts = sum(f.bytes for f in manifest.files), manifest.counts
    return [
        f"{folder}: {manifest.dataset} {manifest.version}, {len(manifest.files)} files",
        f"bytes and sha256 of every file agree ({total:,} bytes)",
        f"{sum(f.table is not None for f in manifest.files)} tables keep their schemas; ids agree "
        f"({counts.items:,} items, {counts.users:,} users)",
        *([signed] if signed else []),
        f"release {hashlib.sha256(raw).hexdigest()}",
    ]


def _refuse_faults(what: str, faults: list[str]) -> None:
    if faults:
        raise UserError(f"release is {what}: {join_faults(faults)}")


def join_faults(faults: list[str]) -> str:
    more = [f"and {len(faults) - MAX_LISTED} more"] * (len(faults) > MAX_LISTED)
    return "; ".join([*faults[:MAX_LISTED], *more])


def _stray_files(folder: Path, manifest: Manifest) -> list[str]:
    listed, present, faults = (
        {f.path for f in manifest.files} | {manifests.NAME},
        set[str](),
        list[str](),
    )
    for at, names, files in os.walk(folder):
        here = Path(at)
        if here == folder:
            names[:] = [n for n in names if n not in TOOLS]
            files = [
                f for f in files if f not in (*TOOLS, signature.NAME) or (here / f).is_symlink()
            ]
        for name in sorted(names + files):
            path = here / name
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                faults.append(f"{relative}: neither file nor folder")
            if path.is_symlink() or not path.is_dir():
                present.add(relative)
    faults += [f"{name}: missing" for name in sorted(listed - present)]
    return faults + [f"{name}: not in the manifest" for name in sorted(present - listed)]


def refuse_damaged(folder: Path, files: Iterable[File]) -> None:
    faults = list[str]()
    for file in files:
        path = folder / file.path
        if not path.is_file():
            faults.append(f"{file.path}: missing")
        elif (size := path.stat().st_size) != file.bytes:
            faults.append(f"{file.path}: {size} bytes, expected {file.bytes}")
        elif io.sha256(path) != file.sha256:
            faults.append(f"{file.path}: changed, its sha256 is another")
    _refuse_faults("damaged", faults)


def _find_mixed(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield sets of vectors whose files differ in fingerprint, and faults of the probes."""
    sets = defaultdict[str, list[Path]](list)
    for file in manifest.files:
        if file.table in ("features", "item_embeddings", *manifests.USER_VECTORS):
            sets[file.path.rpartition("/")[0]].append(folder / file.path)
    checks: list[Callable[[], object]] = [
        partial(io.require_same_space, paths) for paths in sets.values()
    ]
    if PROBES in {f.path for f in manifest.files}:
        checks.append(partial(read_probes, folder / PROBES))
    for check in checks:
        try:
            check()
        except UserError as e:
            yield str(e).removeprefix(f"{folder}/")
