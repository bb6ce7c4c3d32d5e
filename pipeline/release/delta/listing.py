"""delta.json: the rows and files of a release that an older one lacks.

It lists rows/ and runs/ of each table that is rebuilt, whole/ with other files that changed, and
removed.parquet. Files of the release that are in neither are those of the older one.
"""

from __future__ import annotations

from typing import Literal

import orjson
from pydantic import ValidationError

from alignrec import schemas
from alignrec.pipeline.io.errors import Absent, UserError, one_line
from alignrec.pipeline.release import manifest as manifests
from alignrec.pipeline.release.manifest import Count, File, Manifest, Sha256
from alignrec.pipeline.release.params import Version
from alignrec.pipeline.release.paths import DATASET_NAME, DELTA_FILE, find_path_fault
from alignrec.pipeline.release.stores import Store, read_small
from alignrec.pipeline.release.table_kinds import TABLES
from alignrec.pipeline.runtime.section import Part, first_fault

FORMAT: Literal[1] = 1
NAME = DELTA_FILE
ROWS_FOLDER = "rows"  # folder of the new and changed rows of rebuilt tables
RUNS = "runs"  # folder of their order: runs of older and of new rows
WHOLE = "whole"  # folder of files to copy
REMOVED = "removed.parquet"
IDENTIFIERS = schemas.ITEM_IDS.remove(0)


class Rebuilt(Part):
    """A table's file that is rebuilt from rows."""

    path: str
    """path in the release"""
    groups: list[Count]
    """rows of each row group"""


class Changes(Part):
    """Items that differ between the two releases."""

    new: Count
    changed: Count
    """items of both whose text, picture or status differs"""
    removed: Count


class Delta(Part):
    """delta.json"""

    format: Literal[1]
    dataset: str
    version: Version
    older_version: Version
    older: Sha256
    """hash of the manifest.json of the older release"""
    release: Sha256
    """hash of the manifest.json of the release"""
    items: Changes
    pyarrow: str
    """version that rebuilt the tables"""
    rebuilt: list[Rebuilt]
    files: list[File]
    """files of the delta"""
    digest: Sha256 | None = None
    """hash of all other keys"""

    @property
    def name(self) -> str:
        return f"{self.version}-since-{self.older_version}"

    def count_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def describe(self, release: Manifest) -> list[str]:
        """Return lines that say what the delta holds, for the release that it was made of."""
        whole = sum(file.path.startswith(f"{WHOLE}/") for file in self.files) - 1
        total = sum(file.bytes for file in release.files)
        share = 100 * self.count_bytes() / max(1, total)
        items = self.items
        kept = len(release.files) - len(self.rebuilt) - whole
        return [
            f"{items.new:,} new, {items.changed:,} changed and {items.removed:,} removed items",
            f"{len(self.rebuilt)} files by rows, {whole} whole, {kept} as before; "
            f"{self.count_bytes():,} bytes, {share:.0f} % of the release",
        ]


def parse_delta(data: bytes, where: str) -> Delta:
    """Parse untrusted bytes of delta.json; UserError for a fault."""
    path = f"{where}/{NAME}"
    try:
        raw = orjson.loads(data)
        delta = Delta.model_validate(raw)
        is_altered = manifests.digest(raw) != delta.digest
    except ValidationError as e:
        raise UserError(f"{path}: {first_fault(e, Delta)}; this is no valid delta") from None
    except (ValueError, TypeError) as e:
        raise UserError(
            f"{path}: not JSON of a delta ({one_line(e, 100)}); fetch it again"
        ) from None

    if is_altered:
        raise UserError(f"{path}: altered, its digest differs; fetch it again")
    fault = find_path_fault([file.path for file in delta.files])
    if not DATASET_NAME.fullmatch(delta.dataset):
        fault = f"{delta.dataset!r} is no name of a dataset"
    if fault:
        raise UserError(f"{path}: {fault}; do not trust this delta")
    return delta


def read_delta(store: Store) -> tuple[Delta, bytes]:
    """Read and validate the delta.json of an address; return its bytes too."""
    try:
        data = read_small(store, NAME, manifests.MAX_MANIFEST_BYTES)
    except Absent:
        raise UserError(
            f"{store.address}: no {NAME} there; is this the address of a delta?"
        ) from None
    return parse_delta(data, store.address), data


def list_older(older: Manifest, file: File) -> list[File]:
    """Return the files of the same table in the older release; empty without one of its columns."""
    if file.table is None or TABLES[file.table].schema is None:
        return []
    files = [
        entry
        for entry in older.list_tables()
        if (entry.table, entry.table_path) == (file.table, file.table_path)
    ]
    if any(entry.columns != file.columns for entry in files):
        return []
    return sorted(files, key=lambda entry: entry.path)


def first_row(manifest: Manifest, file: File) -> int:
    """Return the number of a file's first row in its table."""
    above = [
        entry.rows or 0
        for entry in manifest.list_tables()
        if entry.table_path == file.table_path and entry.path < file.path
    ]
    return sum(above)
