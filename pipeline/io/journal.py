"""Resume a folder of files after a kill.

The folder's key says what its files are made from, its journal which of them are finished:

1. `open_journal(folder, key)` keeps the files if the folder has the same key, and empties it
   otherwise. The key is a hash of all inputs: files, settings, versions, code.
2. `io.atomic` writes a temporary file, lists its hash in the journal, then renames it. A file under
   its final name is therefore whole; a kill leaves a temporary file, or none.
3. `drop_unlisted(folder)` deletes files that the journal lacks, and damaged ones.
4. The stage writes the files that are missing. A file with inputs that the folder's key does not
   cover, such as a shard of images, has a key of its own: `finish(path, key)` lists it, and
   `is_finished(path, key)` asks.
5. A finished stage writes `run.json`, with the hash of every file (runtime/record.py); readers of
   its output check that.

A folder below may have a journal of its own, independent of the one above.
"""

import os
import secrets
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.files import COST, JOURNAL, KEY, RECORD, sha256, sha256s
from alignrec.pipeline.io.folders import remove, rename_file, unlink_special

UNLISTED = {KEY, JOURNAL, RECORD, COST}  # files that journals skip
GROWING = {
    ".part",
    ".etag",
}  # suffixes of partial downloads, which grow in place: journals skip them


def open_journal(folder: Path, key: str) -> None:
    """Empty a folder and start its journal, unless its `key` is unchanged."""
    key_file = folder / KEY
    if folder.is_symlink():
        folder.unlink()
    unlink_special(folder)
    if _has_journal(folder) and key_file.read_bytes() == key.encode():
        return

    remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOURNAL).write_bytes(b"")

    # last, as a folder without a key is emptied
    temporary = key_file.with_name(f"{KEY}.{secrets.token_hex(4)}.tmp")
    temporary.write_text(key)
    rename_file(temporary, key_file)


def list_file(path: Path, content: Path) -> None:
    """List a file that is about to get its content, if a folder above it has a journal."""
    folder = _folder_above(path)
    if folder is not None and path.name not in UNLISTED:
        _append_line(folder, path, sha256(content))


def finish(path: Path, key: str) -> None:
    """List a file as made from inputs with the hash `key`, unless it changed after it was written.

    A folder above it must have a journal.
    """
    folder = _folder_above(path)
    assert folder is not None
    digest = sha256(path)
    if digest in _read_journal(folder)[path]:
        _append_line(folder, path, f"{digest} {key}")


def is_finished(path: Path, key: str = "") -> bool:
    """Return whether a file is as it was written and, with a key, was listed by `finish`."""
    folder = _folder_above(path)
    if folder is None or not path.is_file():
        return False
    entry = f"{sha256(path)} {key}".rstrip()
    return entry in _read_journal(folder)[path]


def drop_unlisted(folder: Path) -> list[Path]:
    """Delete files that the journal lacks or whose hash differs; return the latter.

    Delete folders in place of files, too, and those without a file.
    """
    listed = _read_journal(folder)
    for path in listed:
        if path.is_dir():
            remove(path)

    candidates = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in UNLISTED
    ]
    files = [path for path in candidates if _folder_above(path) == folder]

    finished = [path for path in files if path in listed]
    hashes = sha256s(finished)
    altered = [
        path for path, digest in zip(finished, hashes, strict=True) if digest not in listed[path]
    ]
    unlisted = [path for path in files if path not in listed and path.suffix not in GROWING]

    for path in [*altered, *unlisted]:
        path.unlink(missing_ok=True)  # ranks of distributed training run this concurrently
    _drop_empty_folders(folder)
    return altered


def list_missing(folder: Path) -> list[Path]:
    """Return the files that the journal has and the folder lacks."""
    return [path for path in _read_journal(folder) if not path.is_file()]


def refuse_altered(hashes: Mapping[Path, str]) -> None:
    """Raise UserError if a file's hash is not the one that a journal above has of it."""
    journals: dict[Path, dict[Path, set[str]]] = {}
    for path, digest in hashes.items():
        folder = _folder_above(path)
        if folder is None:
            continue
        if folder not in journals:
            journals[folder] = _read_journal(folder)
        entries = journals[folder].get(path)
        if entries and not any(entry.startswith(digest) for entry in entries):
            raise UserError(f"{path} changed after it was written; run again, which makes it again")


def _drop_empty_folders(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        # hidden ones are in use, such as those of memory maps
        if path.is_dir() and not path.name.startswith("."):
            with suppress(OSError):  # it has files
                path.rmdir()


def _has_journal(folder: Path) -> bool:
    return (folder / JOURNAL).is_file() and (folder / KEY).is_file()


def _folder_above(path: Path) -> Path | None:
    return next((folder for folder in path.parents if _has_journal(folder)), None)


def _append_line(folder: Path, path: Path, entry: str) -> None:
    with (folder / JOURNAL).open("a", encoding="utf-8") as file:
        # a kill may have cut off the line before
        file.write(f"\n{entry}  {path.relative_to(folder)}")
        file.flush()
        os.fsync(file.fileno())


def _read_journal(folder: Path) -> dict[Path, set[str]]:
    """Return path -> its entries, of all versions that were written: sha256, or sha256 and key."""
    entries: dict[Path, set[str]] = defaultdict(set)
    journal = folder / JOURNAL
    if journal.is_file():
        for line in journal.read_text("utf-8", "replace").split("\n"):
            entry, _, name = line.partition("  ")
            # damage may lead a name out of the folder, or to the folder itself
            if name and not Path(name).is_absolute() and ".." not in Path(name).parts:
                entries[folder / name].add(entry)
    return entries
