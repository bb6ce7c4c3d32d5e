"""Feature files of a source: roles, formats by file name, and packing a folder into one file."""

import hashlib
import unicodedata
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.parquet import read_batches

FEATURE = "feature:"  # role of a feature file: this prefix and the feature set's name
ROWS = "feature_rows"  # role of the mapping file from rows to items, for files without identifiers

NAMES = (
    *(
        "asin",
        "item_id",
        "item",
        "parent_asin",
        "sku",
        "movie_id",
        "product_id",
        "product",
        "book_id",
        "article_id",
    ),
    *("iid", "id"),
)  # identifier columns, best first, compared by `plain_name`
ENDINGS = {
    ".npy": "npy",
    ".parquet": "parquet",
    **dict.fromkeys((".npz", ".zip"), "zip"),
    **dict.fromkeys((".pt", ".pth", ".safetensors"), "torch"),
    **dict.fromkeys((".csv", ".tsv", ".csv.gz", ".tsv.gz", ".itememb"), "delimited"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz"), "json"),
    **dict.fromkeys((".b", ".b.gz"), "records"),
}  # file ending -> format, see pipeline/vectors/base.py
FOLDER = "folder"  # format of names without a known suffix
PER_ITEM = (".npy", ".json")  # file endings in a folder with a file per item
LARGEST = 32 << 20  # maximum bytes of an item's file


def plain_name(column: str) -> str:
    """Return the letters and digits of a name in lower case, without accents."""
    letters = unicodedata.normalize("NFKD", column).casefold()
    return "".join(filter(str.isalnum, letters))


PLAIN = [plain_name(name) for name in NAMES]


def rank_identifier(column: str) -> int:
    return PLAIN.index(name) if (name := plain_name(column)) in PLAIN else -1


def format_of(name: str) -> str:
    return next((kind for ending, kind in ENDINGS.items() if name.lower().endswith(ending)), FOLDER)


def list_members(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.suffix in PER_ITEM and not is_hidden(file.name)
    )


def is_hidden(name: str) -> bool:
    """Return whether a file holds no data by the convention of Hive and Spark, such as `_SUCCESS` or `.DS_Store`."""
    return name.startswith(("_", "."))


def read_member(path: Path) -> bytes:
    return io.require_plain(path, LARGEST).read_bytes()


def list_parts(folder: Path) -> list[Path]:
    found = list_members(folder) or io.list_plain(folder, "*.parquet")
    if not found:
        raise UserError(
            f"{folder}: no .npy, .json or .parquet in this folder; name the folder that holds the files"
        )
    return found


def folder_sha256(folder: Path) -> str:
    listed = [f"{io.sha256(file)}  {file.name}\n" for file in list_parts(folder)]
    return hashlib.sha256("".join(listed).encode()).hexdigest()


def pack_folder(folder: Path, target: Path) -> None:
    """Write a folder reproducibly as one file: a zip of files per item, or a Parquet table."""
    found = list_parts(folder)
    if found[0].suffix == ".parquet":
        schema = _wanted_columns(found[0])
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for path in found:
                if not _wanted_columns(path).equals(schema):
                    raise UserError(
                        f"{path}: has other columns than {found[0]}; name the files of one table"
                    )
                for batch in read_batches(path, schema.names):
                    writer.write_batch(batch.cast(schema))
        return
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for file in found:
            packed.writestr(zipfile.ZipInfo(file.name, (1980, 1, 1, 0, 0, 0)), read_member(file))


def _wanted_columns(path: Path) -> pa.Schema:
    fields = [field.remove_metadata() for field in pq.read_schema(path)]
    return pa.schema(
        [
            f
            for f in fields
            if is_vector(f.type) or (not is_list(f.type) and rank_identifier(f.name) >= 0)
        ]
    )


def is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_vector(kind: pa.DataType) -> bool:
    return is_list(kind) and (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    )
