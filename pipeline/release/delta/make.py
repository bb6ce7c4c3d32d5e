"""Write the delta from an older release to a release."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release import signature
from alignrec.pipeline.release.delta import match, rebuild
from alignrec.pipeline.release.delta.listing import (
    FORMAT,
    IDENTIFIERS,
    NAME,
    REMOVED,
    ROWS_FOLDER,
    RUNS,
    WHOLE,
    Changes,
    Delta,
    Rebuilt,
    first_row,
    list_older,
    parse_delta,
)
from alignrec.pipeline.release.delta.match import RowIndex
from alignrec.pipeline.release.delta.rebuild import TableFile
from alignrec.pipeline.release.manifest import File, describe_file
from alignrec.pipeline.release.read import Release, refuse_damaged
from alignrec.pipeline.release.tables import table_schema


def write_delta(release: Path, older: Path, to: Path) -> Delta:
    """Write the delta from an older release to a folder, which it replaces.

    UserError if one of the releases is damaged, or they are of other datasets or the same.
    """
    newer = Release(release).refuse_without("items").verify()
    base = Release(older).refuse_without("items").verify()
    if newer.manifest.dataset != base.manifest.dataset:
        raise UserError(
            f"{older}: a release of {base.manifest.dataset}, not of {newer.manifest.dataset}; "
            "name an older release of the same dataset"
        )
    if io.sha256(release / manifests.MANIFEST_FILE) == io.sha256(older / manifests.MANIFEST_FILE):
        raise UserError(f"{older}: is the same release; name an older one")

    with io.scratch(io.next_to(to, "new")) as work:
        delta = DeltaWriter(newer, base, work).write()
        for unchanged in (newer, base):  # while the delta was written
            refuse_damaged(unchanged.folder, unchanged.manifest.files)
        if to.exists():
            to.rename(work / "replaced")
        to.parent.mkdir(parents=True, exist_ok=True)
        io.rename_folder(work / "delta", to)
    return delta


class DeltaWriter:
    """Writes a delta to the folder `delta` in an empty folder for work."""

    def __init__(self, newer: Release, older: Release, work: Path) -> None:
        self.newer = newer
        self.older = older
        self.folder = work / "delta"
        self.tried = work / "tried.parquet"
        self.numbers = rebuild.match_numbers(older.folder, newer.folder)
        self.rebuilt: list[Rebuilt] = []
        self.files: list[File] = []
        self._indexed = ""
        self._index: RowIndex | None = None
        self._new_item_rows = 0

    def write(self) -> Delta:
        known = {file.sha256 for file in self.older.manifest.files}
        for file in self.newer.manifest.files:
            if file.sha256 not in known and not self._write_rows(file):
                self._copy(file.path)
        for name in (manifests.MANIFEST_FILE, *self._signatures()):
            self._copy(name)
        removed = rebuild.list_removed(self.older.folder, self.numbers)
        table = pa.table([removed], IDENTIFIERS.names)
        io.write_table(table, self.folder / REMOVED, IDENTIFIERS)
        self._list(self.folder / REMOVED)

        content = self._describe(len(removed))
        path = self.folder / NAME
        io.write_json(path, manifests.with_digest(content.model_dump()))
        return parse_delta(path.read_bytes(), str(self.folder))

    def _describe(self, n_removed: int) -> Delta:
        older = self.older.manifest
        newer = self.newer.manifest
        n_new = newer.counts.items - older.counts.items + n_removed
        n_changed = self._new_item_rows - n_new if self._new_item_rows else 0
        return Delta(
            format=FORMAT,
            dataset=newer.dataset,
            version=newer.version,
            older_version=older.version,
            older=io.sha256(self.older.folder / manifests.MANIFEST_FILE),
            release=io.sha256(self.newer.folder / manifests.MANIFEST_FILE),
            items=Changes(new=n_new, changed=n_changed, removed=n_removed),
            pyarrow=pa.__version__,
            rebuilt=self.rebuilt,
            files=self.files,
        )

    def _signatures(self) -> list[str]:
        return [file.path for file in signature.list_files(self.newer.folder)]

    def _copy(self, name: str) -> None:
        target = self.folder / WHOLE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.newer.folder / name, target)
        self._list(target)

    def _list(self, path: Path) -> None:
        self.files.append(describe_file(self.folder, path))

    def _write_rows(self, file: File) -> bool:
        """Write what rebuilds a table's file; return whether that gives its bytes, and is less."""
        older = list_older(self.older.manifest, file)
        if not older:
            return False
        path = self.newer.folder / file.path
        schema = table_schema(path, file)
        first = first_row(self.newer.manifest, file)
        table = rebuild.describe_table(path, str(file.table), schema, first)
        if not (rebuild.is_bounded(table) and rebuild.can_renumber(table, self.numbers)):
            return False

        older_paths = [self.older.folder / entry.path for entry in older]
        matched = self._index_older(file, older_paths, table).match(path, table)
        if file.table == "items":
            self._new_item_rows = int((matched < 0).sum())
        origins = match.keep_increasing(matched)

        rows = self.folder / ROWS_FOLDER / file.path
        runs = self.folder / RUNS / file.path
        match.write_added(rows, path, table, origins)
        match.write_runs(runs, origins)
        is_smaller = rows.stat().st_size + runs.stat().st_size < file.bytes
        if is_smaller and self._gives_file(file, table, older_paths, origins):
            self.rebuilt.append(Rebuilt(path=file.path, groups=table.groups))
            self._list(rows)
            self._list(runs)
            return True

        rows.unlink()
        runs.unlink()
        return False

    def _gives_file(
        self, file: File, table: TableFile, older: Sequence[Path], origins: np.ndarray
    ) -> bool:
        """Return whether the file is rebuilt byte for byte."""
        rows = self.folder / ROWS_FOLDER / file.path
        try:
            rebuild.rebuild_table(self.tried, table, older, rows, origins, self.numbers)
        except schemas.ContractError:  # rows of equal hash that differ
            return False
        return io.sha256(self.tried) == file.sha256

    def _index_older(self, file: File, paths: Sequence[Path], table: TableFile) -> RowIndex:
        """Index the rows of an older table, once for all files of the newer one."""
        if self._indexed != file.table_path:
            self._index = None  # frees that of the table before
            self._index = RowIndex(paths, table, self.numbers)
            self._indexed = file.table_path
        assert self._index is not None
        return self._index
