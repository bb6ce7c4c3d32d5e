"""Feature files: roles, formats by file name, and packing a folder into one file."""

import hashlib
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.parquet import read_batches
from alignrec.pipeline.vectors.identifiers import rank_identifier

FEATURE = "feature:"  # role of a feature file: this prefix and the feature set's name
ROWS = "feature_rows"  # role of the mapping file from rows to items, for files without identifiers

ENDINGS = {
    ".npy": "npy",
    ".parquet": "parquet",
    **dict.fromkeys((".npz", ".zip"), "zip"),
    **dict.fromkeys((".pt", ".pth", ".safetensors"), "torch"),
    **dict.fromkeys((".csv", ".tsv", ".csv.gz", ".tsv.gz", ".itememb"), "delimited"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz"), "json"),
    **dict.fromkeys((".b", ".b.gz"), "records"),
}  # file ending -> format, a key of READERS in base.py
FOLDER_FORMAT = "folder"  # format of names without a known suffix

MEMBER_ENDING = ".npy"  # of the files in a folder with a file per item
MAX_MEMBER_BYTES = 32 << 20
MEMBER_TIME = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # of the members of a packed folder, so that equal folders give equal bytes


def format_of(name: str) -> str:
    for ending, file_format in ENDINGS.items():
        if name.lower().endswith(ending):
            return file_format
    return FOLDER_FORMAT


def raw_files(sources: Path) -> dict[str, Path]:
    """Return role -> path of the files that `sources.json` lists."""
    return {row["role"]: sources.parent / row["name"] for row in io.read_json(sources)}


def list_members(folder: Path) -> list[Path]:
    """Return the files of a folder with a file per item, by name."""
    paths = (path for path in folder.iterdir() if path.suffix == MEMBER_ENDING)
    return sorted(path for path in paths if not is_hidden(path.name))


def is_hidden(name: str) -> bool:
    """Return whether a file holds no data by the convention of Hive, such as `_SUCCESS`."""
    return name.startswith(("_", "."))


def read_member(path: Path) -> bytes:
    return io.require_plain(path, MAX_MEMBER_BYTES).read_bytes()


def list_parts(folder: Path) -> list[Path]:
    """Return the files per item in a folder, or the Parquet files of a table."""
    parts = list_members(folder) or io.list_plain(folder, "*.parquet")
    if not parts:
        raise UserError(
            f"{folder}: no .npy or .parquet in this folder; name the folder that holds the files"
        )
    return parts


def folder_sha256(folder: Path) -> str:
    lines = [f"{io.sha256(path)}  {path.name}\n" for path in list_parts(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def pack_folder(folder: Path, target: Path) -> None:
    """Write a folder reproducibly as one file: a zip of files per item, or a Parquet table."""
    parts = list_parts(folder)
    if parts[0].suffix == ".parquet":
        _pack_table(parts, target)
    else:
        _pack_members(parts, target)


def _pack_members(members: list[Path], target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in members:
            archive.writestr(zipfile.ZipInfo(path.name, MEMBER_TIME), read_member(path))


def _pack_table(parts: list[Path], target: Path) -> None:
    schema = _feature_schema(parts[0])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for path in parts:
            if not _feature_schema(path).equals(schema):
                raise UserError(
                    f"{path}: has other columns than {parts[0]}; name the files of one table"
                )

            for batch in read_batches(path, schema.names):
                writer.write_batch(batch.cast(schema))


def _feature_schema(path: Path) -> pa.Schema:
    """Return the columns of identifiers and of vectors in a Parquet file."""
    fields = []
    for field in pq.read_schema(path):
        is_identifier = not is_list(field.type) and rank_identifier(field.name) >= 0
        if is_vector(field.type) or is_identifier:
            fields.append(field.remove_metadata())
    return pa.schema(fields)


def is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_vector(kind: pa.DataType) -> bool:
    return is_list(kind) and is_number(kind.value_type)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)
