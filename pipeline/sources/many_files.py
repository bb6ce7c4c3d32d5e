"""Features of many files as one: a folder with a file per item, and Parquet of a dataset on the Hugging Face Hub."""

import hashlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import io
from pipeline.errors import UserError, one_line
from pipeline.http import hub
from pipeline.http.fetch import Progress
from pipeline.http.retries import TransientError, retry
from pipeline.sources.feature_files import HUB, rank

PER_ITEM = (".npy", ".json")
LARGEST = 32 << 20  # bytes of a file of one item
BLOCK = 4096  # rows of a table at a time
PLACE = re.compile(r"hf://(datasets/[\w.-]+/[\w.-]+(?:@[^/]+)?)((?:/[^/]+)*)")


def members(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in PER_ITEM)


def read_member(path: Path) -> bytes:
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise UserError(f"{path}: not a plain file of at most {LARGEST:,} bytes, as one item's vector is")
    return path.read_bytes()


def parts(folder: Path) -> list[Path]:
    found = members(folder) or sorted(folder.glob("*.parquet"))
    if not found:
        raise UserError(f"{folder}: no .npy, .json or .parquet in this folder; name the folder that holds the files")
    return found


def sha256(folder: Path) -> str:
    """Return the sha256 of the names and contents of what `pack` reads."""
    listed = [f"{io.sha256(file)}  {file.name}\n" for file in parts(folder)]
    return hashlib.sha256("".join(listed).encode()).hexdigest()


def pack(folder: Path, target: Path) -> None:
    """Write a folder as one file, the same bytes for the same files: a zip of files per item, or one table."""
    found = parts(folder)
    if found[0].suffix == ".parquet":
        _join(found, target)
        return
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for file in found:
            packed.writestr(zipfile.ZipInfo(file.name, (1980, 1, 1, 0, 0, 0)), read_member(file))


def packed_ending(folder: Path) -> str:
    return ".zip" if members(folder) else ".parquet"


def from_hub(address: str, target: Path, retries: int, progress: Progress) -> None:
    """Write the identifiers and vectors of a dataset on the Hub as one Parquet file; other columns are not fetched.

    `address` is hf://datasets/owner/name, optionally with @revision, and a folder or a file there; `progress` counts
    rows. `target` may be incomplete after an error. UserError: no such dataset, no Parquet in it, or unreachable.
    """

    def attempt() -> None:
        fs = hub.file_system()
        with _translate_errors(address):
            _join(_tables(fs, address), target, lambda path: fs.open(path, "rb"), progress)

    try:
        retry(attempt, retries + 1)
    except TransientError as e:
        raise UserError(f"{address}: {e}; run again") from None


def hub_size(address: str) -> int:
    fs = hub.file_system()
    with _translate_errors(address):
        return sum(int(fs.info(path)["size"]) for path in _tables(fs, address))


def _tables(fs: Any, address: str) -> list[str]:
    place = PLACE.fullmatch(address.rstrip("/"))
    if place is None:
        raise UserError(f"{address}: names no dataset of the Hub; write hf://datasets/owner/name")
    path = address.rstrip("/").removeprefix(HUB)
    found = [path] if path.endswith(".parquet") else sorted(p for p in fs.find(path) if p.endswith(".parquet"))
    if not found:
        raise UserError(
            f"{address}: no Parquet there; the Hub's own conversion lies at hf://{place[1]}@refs%2Fconvert%2Fparquet"
        )
    return found


def _join(
    tables: Sequence[Any], target: Path, opened: Any = lambda path: path, progress: Progress = lambda done, total: None
) -> None:
    """Write scalars and vectors of numbers of tables with the same columns as one table, BLOCK rows at a time."""
    done, writer = 0, None
    try:
        for path in tables:
            file = pq.ParquetFile(opened(path))
            schema = pa.schema([field.remove_metadata() for field in file.schema_arrow if _is_wanted(field)])
            writer = writer or pq.ParquetWriter(target, schema, compression="zstd")
            if not schema.equals(writer.schema):
                raise UserError(f"{path}: has other columns than {tables[0]}; name the files of one table")
            for batch in file.iter_batches(BLOCK, columns=schema.names):
                writer.write_batch(batch.cast(schema))
                progress(done := done + len(batch), None)
    finally:
        if writer is not None:
            writer.close()


def _is_wanted(field: pa.Field) -> bool:
    kind = field.type
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return pa.types.is_floating(kind.value_type) if nested else rank(field.name) >= 0


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    try:
        with hub.errors(address):
            yield
    except hub.Absent:
        raise UserError(f"{address}: no such dataset or file, or no access to it; {hub.HINT}") from None
    except pa.ArrowException as e:
        raise UserError(f"{address}: not readable as Parquet: {one_line(e, 100)}") from None
