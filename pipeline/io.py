"""Reading and writing: every file appears whole or not at all, every table is checked when read and written."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline.errors import UserError

PART = 16_384
"""items of a row group of a table of items: what is held of it at a time"""
KEY, JOURNAL = ".key", ".sha256"
"""of a folder that is resumed by itself: the key that it was begun with, and the sha256 of each file written there"""
RECORD, COST, COSTS = "run.json", "cost.json", "costs"
"""of a stage that has ended: what it made, equal for equal runs; and what that took on this machine, in all and by
training"""
UNLISTED = {KEY, JOURNAL, RECORD, COST, COSTS}
"""names of files and folders that no journal lists"""
_HASHED: dict[tuple[Path | int, ...], str] = {}
"""path and what `touched` says -> sha256"""
HELD_OTHERWISE = {".part", ".etag"}
"""endings of begun downloads, which grow in place, so that no journal lists them"""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed over `path`.

    In a folder that is resumed by itself the journal lists its sha256 first: no file is there that it does not list.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        flush(temporary)
        _list(path, temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make an empty folder, whatever a killed run left there, and delete it in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def flush(path: Path) -> None:
    """Flush a file's bytes to disk."""
    with path.open("rb+") as f:
        os.fsync(f.fileno())


def begin(folder: Path, key: str) -> None:
    """Empty a folder that is resumed by itself, and begin its journal.

    Args:
        folder: missing ones are made.
        key: sha256 of all that its content depends on.
    """
    shutil.rmtree(folder, ignore_errors=True)
    write_bytes(folder / JOURNAL, b"")
    write_bytes(folder / KEY, key.encode())  # last: without it the folder is begun again


def begun(folder: Path, key: str) -> bool:
    """Return whether `begin` was called with the same key."""
    mark = folder / KEY
    return (folder / JOURNAL).is_file() and mark.is_file() and mark.read_bytes() == key.encode()


def journal(folder: Path) -> dict[Path, set[str]]:
    """Return path -> sha256 of each content that was written there; a line that a kill cut off counts for nothing.

    A file that was rewritten has several: a kill before the new content appears leaves the one before.
    """
    listed: dict[Path, set[str]] = {}
    for line in (folder / JOURNAL).read_text(encoding="utf-8", errors="replace").split("\n"):
        digest, separator, name = line.partition("  ")
        if separator and name:
            listed.setdefault(folder / name, set()).add(digest)
    return listed


def delete_unvouched(folder: Path) -> list[Path]:
    """Delete the files of a begun folder that its journal does not list; return those that it lists otherwise, sorted.

    Folders in it that are resumed by themselves do not count.
    """
    listed = journal(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in UNLISTED and _begun_above(p) == folder)
    known = [path for path in files if path in listed]
    altered = [path for path, digest in zip(known, sha256s(known), strict=True) if digest not in listed[path]]
    for path in [*altered, *(p for p in files if p not in listed and p.suffix not in HELD_OTHERWISE)]:
        path.unlink(missing_ok=True)  # the ranks of a training do this at the same time
    return altered


def _list(path: Path, written: Path) -> None:
    """Add a file that is about to appear as `path` to the journal of its folder, if there is one."""
    if path.name in UNLISTED or (folder := _begun_above(path)) is None:
        return
    digest = sha256(written)
    _unlink(folder / JOURNAL)
    with (folder / JOURNAL).open("a", encoding="utf-8") as f:  # start a new line, whatever a kill left of the last
        f.write(f"\n{digest}  {path.relative_to(folder)}")
        f.flush()
        os.fsync(f.fileno())


def _unlink(path: Path) -> None:
    """Give a file that grows in place an inode of its own: `dvc pull` leaves a read-only link into DVC's cache."""
    if path.stat().st_nlink > 1:
        write_bytes(path, path.read_bytes())


def settle(folder: Path) -> None:
    """Rewrite the journals below a folder whose stage has ended: a line per file that is there, sorted by name.

    A colleague who pulls the folder resumes from them, and equal runs leave equal bytes.
    """
    for path in sorted(folder.rglob(JOURNAL)):
        listed = journal(path.parent)
        present = sorted(file for file in listed if file.is_file())
        digests = zip(present, sha256s(present), strict=True)
        lines = [f"{digest}  {file.relative_to(path.parent)}" for file, digest in digests if digest in listed[file]]
        write_bytes(path, "\n".join(lines).encode())


def _begun_above(path: Path) -> Path | None:
    """Return the nearest folder above `path` that is resumed by itself."""
    return next((f for f in path.parents if (f / JOURNAL).is_file() and (f / KEY).is_file()), None)


def write_bytes(path: Path, data: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def mapped(parts: Iterable[np.ndarray], folder: Path) -> np.ndarray:
    """Return arrays one after the other, as a map of a file in `folder` that has no name and ends with the process.

    Writes into the map stay in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, last = 0, None
    with tempfile.TemporaryFile(dir=folder) as file:
        for last in parts:
            file.write(np.ascontiguousarray(last).data)
            rows += len(last)
        file.flush()
        if last is None or not rows * last[:1].size:
            raise ValueError("an empty file cannot be mapped")
        return np.memmap(file, last.dtype, "c", shape=(rows, *last.shape[1:]))


def write_npy(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: sorted by insertion, indented, NaN refused, so that equal values are equal bytes."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path, most: int | None = None) -> Any:
    """Read a JSON file of the pipeline; UserError says what to run when it is absent, broken, or above `most` bytes."""
    try:
        if most is not None and (size := path.stat().st_size) > most:
            raise UserError(f"{path}: {size:,} bytes; no file of this kind is larger than {most:,}")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {made_by(path)}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not JSON ({e}); {made_by(path)}") from None


def write_table(table: pa.Table, path: Path, schema: pa.Schema, record: dict[str, Any] | None = None) -> None:
    """Check `table` against `schema` and write it atomically as Parquet.

    Args:
        table: the rows.
        path: of the file; missing folders are made.
        schema: one of `schemas`.
        record: provenance of the file (stage, parameters, versions; nothing that differs between equal runs);
            stored as JSON under the key `alignrec` of the file's metadata.

    Raises:
        schemas.ContractError: the table breaks the schema; nothing is written.
    """
    table = schemas.check(table, schema, str(path))
    if record is not None:
        table = table.replace_schema_metadata({"alignrec": json.dumps(record, sort_keys=True)})
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_tables(tables: Iterable[pa.Table], path: Path, schema: pa.Schema, record: dict[str, Any]) -> None:
    """Do as `write_table`, a row group a table and one in memory at a time; no tables give no rows."""
    kept = schema.with_metadata({"alignrec": json.dumps(record, sort_keys=True)})
    with atomic(path) as temporary, pq.ParquetWriter(temporary, kept, compression="zstd") as file:
        for table in tables:
            file.write_table(schemas.check(table, schema, str(path)).replace_schema_metadata(kept.metadata))


def read_tables(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    with _readable(path), pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield schemas.check(file.read_row_group(number), schema, str(path))


def read_slices(path: Path, schema: pa.Schema, columns: list[str], rows: int) -> Iterator[pa.Table]:
    """Yield some columns of a Parquet file, checked, `rows` at a time; errors are those of `read_table`."""
    expected = pa.schema([schema.field(c) for c in columns])
    with _readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=columns):
            yield schemas.check(pa.Table.from_batches([batch]).select(columns), expected, str(path))


def read_rows(path: Path, schema: pa.Schema, columns: list[str], start: int, rows: int) -> pa.Table:
    """Read a slice of some columns from `start` on, checked; row groups that have none of them are not read."""
    with _readable(path), pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        firsts = np.cumsum([0, *sizes])
        holding = [g for g, size in enumerate(sizes) if firsts[g] < start + rows and start < firsts[g] + size]
        table = file.read_row_groups(holding, columns).select(columns)
    expected = pa.schema([schema.field(c) for c in columns])
    return schemas.check(table.slice(start - firsts[holding[0]] if holding else 0, rows), expected, str(path))


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file and check it, all columns or some.

    Raises:
        UserError: the file is absent or no Parquet file.
        schemas.ContractError: it breaks the schema.
    """
    with _readable(path), pq.ParquetFile(path) as f:  # pq.read_table would first load pyarrow.dataset
        table = f.read(columns)
    expected = schema if columns is None else pa.schema([schema.field(c) for c in columns])
    return schemas.check(table, expected, str(path))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what PyArrow says of a Parquet file that it cannot read into one line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {made_by(path)}") from None
    except (pa.ArrowInvalid, UnicodeDecodeError, KeyError, OSError) as e:
        raise UserError(f"{path}: not a readable Parquet file ({' '.join(str(e).split())}); {made_by(path)}") from None


def shards(folder: Path, stem: str) -> list[Path]:
    """Return `<stem>-*.parquet` of a folder in order; UserError if there is none."""
    paths = sorted(folder.glob(f"{stem}-*.parquet"))
    if not paths:
        raise UserError(f"{folder}: no {stem}-*.parquet there; {made_by(folder)}")
    return paths


def shard(folder: Path, stem: str, number: int) -> Path:
    return folder / f"{stem}-{number:05d}.parquet"


def read_features(folder: Path) -> pa.Table:
    """Read a whole feature set in item order; its width is taken from its first shard.

    Returns:
        table of schema features(F) with rows item_id = 0 .. I-1.

    Raises:
        UserError: no shard there. schemas.ContractError: a shard breaks the schema or ids are not 0 .. I-1.
    """
    schema = schemas.features(width(folder))
    table = pa.concat_tables([read_table(p, schema) for p in shards(folder, "features")])
    _dense(folder, table, 0)
    return table


def map_features(folder: Path) -> np.ndarray:
    """Return the vectors of a feature set in item order, float32 [I, F], a map of a file without a name.

    The system may drop what is not in use of it, and its disk is free again once the array is gone. Errors are
    those of `read_features`.
    """
    schema = schemas.features(width(folder))

    def parts() -> Iterator[np.ndarray]:
        first = 0
        for path in shards(folder, "features"):
            part = read_table(path, schema, ["item_id", "vector"])
            _dense(folder, part, first)
            first += len(part)
            yield matrix(part["vector"])

    return mapped(parts(), folder)


def _dense(folder: Path, part: pa.Table, first: int) -> None:
    """Refuse rows whose item_id is not first, first + 1, and so on."""
    ids = part["item_id"].to_numpy()
    if (wrong := np.flatnonzero(ids != np.arange(first, first + len(ids)))).size:
        row = int(wrong[0])
        raise schemas.ContractError(
            f"{folder}: column 'item_id', row {first + row}: {ids[row]}, expected {first + row} (dense, in order)"
        )


def width(folder: Path) -> int:
    """Return F of a feature set; errors are those of `read_features`."""
    path = shards(folder, "features")[0]
    with _readable(path):
        kind = pq.read_schema(path).field("vector").type
    if not pa.types.is_fixed_size_list(kind):
        raise schemas.ContractError(f"{path}: column 'vector' is {kind}, expected fixed_size_list<float>")
    return int(kind.list_size)


def read_vectors(folder: Path, rows: int) -> Iterator[np.ndarray]:
    """Yield the vectors of a feature set in item order, float32 [b, F], b at most `rows`."""
    schema = schemas.features(width(folder))
    for path in shards(folder, "features"):
        yield from (matrix(table["vector"]) for table in read_slices(path, schema, ["vector"], rows))


def rows(paths: Iterable[Path]) -> int:
    """Return the number of rows of some Parquet files."""
    return sum(pq.read_metadata(path).num_rows for path in paths)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Return a fixed-size-list column as float32 [rows, width]."""
    width = column.type.list_size
    flat = [np.asarray(c.flatten().to_numpy(zero_copy_only=False)) for c in column.chunks]
    return np.concatenate(flat).reshape(-1, width) if flat else np.empty((0, width), np.float32)


def vectors(array: np.ndarray) -> pa.FixedSizeListArray:
    """Return float32 [rows, width] as a fixed-size-list column."""
    flat = pa.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=schemas.vector(array.shape[1]))


def sha256(path: Path) -> str:
    """Return the hex sha256 of a file; one that was not touched since it was hashed is not read again."""
    state: tuple[Path | int, ...] = (path, *touched(path))
    if state not in _HASHED:
        with path.open("rb") as f:
            _HASHED[state] = hashlib.file_digest(f, "sha256").hexdigest()
    return _HASHED[state]


def touched(path: Path) -> list[int]:
    """Return the inode, size and times of change of a file, which change when it is written or replaced."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted, without hidden ones, run records and signatures."""
    found = (path for path in folder.rglob("*") if path.is_file())
    kept = (path for path in found if path.suffix != ".sig")
    return sorted(
        path for path in kept if not any(p[0] == "." or p in UNLISTED for p in path.relative_to(folder).parts)
    )


def sha256s(paths: Sequence[Path]) -> list[str]:
    """Return the hex sha256 of each file, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(sha256, paths))


def digest(paths: Iterable[Path]) -> str:
    """Return one sha256 over names and contents of files, in their order."""
    files = list(paths)
    lines = (f"{path.name} {sha256}\n" for path, sha256 in zip(files, sha256s(files), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def present(paths: Sequence[Path]) -> list[Path]:
    """Return files that are there; UserError names the first that is not, and what makes it."""
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: not there; {made_by(path)}")
    return list(paths)


def keep_only(folder: Path, wanted: Iterable[Path]) -> None:
    """Delete what earlier parameters left below `folder`: files that are not `wanted`, then empty folders.

    Hidden files stay.
    """
    kept = set(wanted)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept and not path.name.startswith("."):
            path.unlink()


def record(path: Path) -> dict[str, Any]:
    """Return what a Parquet file says of how it was made; empty where it says nothing."""
    return dict(json.loads((pq.read_schema(path).metadata or {}).get(b"alignrec", b"{}")))


def made_by(path: Path) -> str:
    """Guess from <root>/<stage>/<dataset>/... which command makes `path`."""
    parts = path.parts
    for i in range(len(parts) - 2, 0, -1):
        if _is_stage(parts[i - 1]):
            return f"run `alignrec {parts[i - 1]} {parts[i]}` first"
    if len(parts) >= 2 and _is_stage(parts[-2]):
        return f"run `alignrec {parts[-2]} {parts[-1]}` first"
    return "make it first"


def _is_stage(name: str) -> bool:
    return (Path(__file__).parents[1] / "stages" / f"{name}.py").is_file()
