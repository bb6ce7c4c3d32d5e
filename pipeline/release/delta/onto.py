"""Fetch a delta, and make the release of it and of the older release."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.tables import reraise_faults
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import signature
from alignrec.pipeline.release.delta import rebuild
from alignrec.pipeline.release.delta.listing import (
    IDENTIFIERS,
    NAME,
    REMOVED,
    ROWS_FOLDER,
    RUNS,
    WHOLE,
    Delta,
    first_row,
    list_older,
    read_delta,
)
from alignrec.pipeline.release.delta.rebuild import Numbers, TableFile
from alignrec.pipeline.release.fetch import claim_target, download_files, drop_unfinished, is_filled
from alignrec.pipeline.release.manifest import File, Manifest
from alignrec.pipeline.release.paths import SIGNATURE_FILE
from alignrec.pipeline.release.read import Release, verify
from alignrec.pipeline.release.stores import Progress, Store, open_store
from alignrec.pipeline.release.tables import table_schema

MANIFEST = f"{WHOLE}/{manifests.MANIFEST_FILE}"
FIRST = ("items", "users")  # tables that number what others refer to


def copy_delta(address: str, to: Path, progress: Progress) -> None:
    """Copy a delta to a folder, as `fetch` does with a release."""
    store = open_store(address)
    delta, data = read_delta(store)
    with claim_target(to) as work:
        if is_filled(to, NAME, data):
            return
        folder = _download_delta(store, delta, data, work, progress)
        io.write_bytes(folder / NAME, data)
        io.rename_folder(folder, to)
        drop_unfinished(work)


def fetch_onto(
    address: str,
    older: Path,
    to: Path | None = None,
    progress: Progress = lambda done, total: None,
    key: Path | None = None,
) -> Path:
    """Make a release of a delta and its older release; return its folder.

    That is by default <dataset>-<version> next to the older one. UserError if either is damaged or
    not of the other, or if the release is not that of its manifest; nothing is then written.
    """
    store = open_store(address)
    delta, data = read_delta(store)
    base = Release(older)
    if io.sha256(older / manifests.MANIFEST_FILE) != delta.older:
        raise UserError(
            f"{older}: not the release {delta.dataset} {delta.older_version} that the delta was "
            f"made from (manifest {delta.older[:12]}); name that one"
        )
    base.verify()

    to = to or older.absolute().with_name(f"{delta.dataset}-{delta.version}")
    to = Path(os.path.abspath(to))
    with claim_target(to) as work:
        folder = _download_delta(store, delta, data, work, progress)
        manifest = _read_manifest(folder, delta, store.address, key)
        if is_filled(to, manifests.MANIFEST_FILE, (folder / MANIFEST).read_bytes()):
            verify(to)
        else:
            release = folder.with_suffix(".release")
            Rebuilder(delta, folder, base, manifest, release).write()
            verify(release)
            io.rename_folder(release, to)
        drop_unfinished(work)
    return to


def _download_delta(
    store: Store, delta: Delta, data: bytes, work: Path, progress: Progress
) -> Path:
    # named by the hash of the list, so that a resumed download never mixes two deltas
    folder = work / hashlib.sha256(data).hexdigest()
    download_files(store, delta.files, folder, progress)
    return folder


def _read_manifest(folder: Path, delta: Delta, address: str, key: Path | None) -> Manifest:
    """Return the manifest of the release, whose signature is checked first."""
    path = folder / MANIFEST
    if not path.is_file() or io.sha256(path) != delta.release:
        raise UserError(f"{address}: has not the manifest of its release; fetch it again")
    try:
        data = manifests.read(path.parent)
        signature.check(path.parent, data, key)
        return manifests.parse(path.parent, data)
    except UserError as e:
        raise UserError(str(e).replace(str(folder), address)) from None


class Rebuilder:
    """Writes a release of a delta and an older release; files that are whole already stay."""

    def __init__(
        self, delta: Delta, folder: Path, older: Release, manifest: Manifest, release: Path
    ) -> None:
        self.delta = delta
        self.folder = folder
        self.older = older
        self.manifest = manifest
        self.release = release
        self.groups = {table.path: table.groups for table in delta.rebuilt}
        self.known = {file.sha256: file.path for file in older.manifest.files}
        self.listed = {file.path for file in delta.files}

    def write(self) -> None:
        numbering = [file for file in self.manifest.files if file.table in FIRST]
        others = [file for file in self.manifest.files if file.table not in FIRST]
        for file in numbering:
            self._write_file(file, {})
        numbers = rebuild.match_numbers(self.older.folder, self.release)
        for file in others:
            self._write_file(file, numbers)
        for name in (manifests.MANIFEST_FILE, SIGNATURE_FILE):
            if f"{WHOLE}/{name}" in self.listed:
                self._copy(self.folder / WHOLE / name, name)
        self._check_removed(numbers)
        self._drop_strays()

    def _write_file(self, file: File, numbers: Numbers) -> None:
        target = self.release / file.path
        if target.is_file() and io.sha256(target) == file.sha256:
            return
        if file.path in self.groups:
            self._rebuild(file, numbers)
        elif f"{WHOLE}/{file.path}" in self.listed:
            self._copy(self.folder / WHOLE / file.path, file.path)
        elif file.sha256 in self.known:
            self._copy(self.older.folder / self.known[file.sha256], file.path)
        else:
            raise UserError(
                f"{file.path}: neither in the delta nor in {self.older.folder}; "
                "fetch the whole release"
            )

    def _copy(self, path: Path, name: str) -> None:
        io.copy_file(path, self.release / name)

    def _rebuild(self, file: File, numbers: Numbers) -> None:
        try:
            self._rebuild_table(file, numbers)
        except (UserError, schemas.ContractError, pa.ArrowException, ValueError, KeyError) as e:
            fault = one_line(str(e).replace(f"{self.folder}/", ""))
            raise UserError(
                f"{file.path}: cannot be rebuilt ({fault}); fetch the delta again"
            ) from None
        if io.sha256(self.release / file.path) != file.sha256:
            raise UserError(
                f"{file.path}: rebuilt with another sha256 than the manifest's; install pyarrow "
                f"{self.delta.pyarrow}, or fetch the whole release (pyarrow here: {pa.__version__})"
            )

    def _rebuild_table(self, file: File, numbers: Numbers) -> None:
        older = list_older(self.older.manifest, file)
        rows = self.folder / ROWS_FOLDER / file.path
        first = first_row(self.manifest, file)
        with reraise_faults(rows):
            schema = table_schema(rows, file)
            record = io.record(rows) or None
        table = TableFile(str(file.table), schema, record, first, self.groups[file.path])
        if not rebuild.is_bounded(table) or sum(table.groups) != file.rows:
            raise UserError("its row groups are not those of the manifest")

        n_older = sum(entry.rows or 0 for entry in older)
        n_added = rebuild.count_rows(rows)
        runs = self.folder / RUNS / file.path
        origins = rebuild.read_origins(runs, sum(table.groups), n_older, n_added)
        older_paths = [self.older.folder / entry.path for entry in older]
        target = self.release / file.path
        rebuild.rebuild_table(target, table, older_paths, rows, origins, numbers)

    def _check_removed(self, numbers: Numbers) -> None:
        removed = rebuild.list_removed(self.older.folder, numbers)
        path = self.folder / REMOVED
        n_read = 0
        is_equal = path.is_file()
        for part in rebuild.read_rows(path, IDENTIFIERS) if is_equal else ():
            is_equal = is_equal and part.column(0).equals(removed.slice(n_read, len(part)))
            n_read += len(part)
        if not is_equal or n_read != len(removed):
            raise UserError(
                f"{REMOVED}: not the items that the release lacks; fetch the delta again"
            )

    def _drop_strays(self) -> None:
        """Delete what a killed run left half-written."""
        expected = {file.path for file in self.manifest.files}
        expected |= {manifests.MANIFEST_FILE, SIGNATURE_FILE}
        for path in [path for path in self.release.rglob("*") if path.is_file()]:
            if path.relative_to(self.release).as_posix() not in expected:
                path.unlink()
