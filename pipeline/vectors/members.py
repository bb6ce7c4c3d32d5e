"""Readers of one file per item, in a folder or a zip archive, and of .npz."""

import math
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from alignrec.pipeline.io import archives
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.vectors.arrays import HEADERS, open_named, read_header
from alignrec.pipeline.vectors.base import VectorFile, check_vector, gather_rows, no_vectors
from alignrec.pipeline.vectors.formats import (
    MAX_MEMBER_BYTES,
    MEMBER_ENDING,
    is_hidden,
    list_members,
    read_member,
)
from alignrec.pipeline.vectors.parquet import open_parquet

# of a .npz with a matrix and its identifiers; otherwise it has one array per item
MAX_NAMED_ARRAYS = 2
Member = tuple[str, Callable[[], bytes]]  # name, and a function that reads its bytes


def open_folder(path: Path) -> VectorFile:
    if not path.is_dir():
        raise UserError(
            f"{path}: no folder, and its name has no ending of a known format; see docs/compare.md"
        )

    files = list_members(path)
    is_feature_set = any(path.glob("features-*.parquet"))  # whose set.json is not a vector
    if not files or is_feature_set:
        return open_parquet(path)
    return _open_members(path, [(file.name, partial(read_member, file)) for file in files])


def open_archive(path: Path) -> VectorFile:
    """Open a .zip with a .npy per item, as Ducho's, or a .npz with an array per item."""
    archive = archives.open_zip(path)
    by_name = {
        member.filename: member
        for member in archive.infolist()
        if member.filename.endswith(MEMBER_ENDING)
    }
    names = [name for name in sorted(by_name) if not is_hidden(name.rpartition("/")[2])]
    members = [by_name[name] for name in names]

    if path.suffix == ".npz" and _has_matrix(archive, members):
        arrays = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            arrays[name] = _unpack_array(path, archive, member)
        return open_named(path, arrays)

    readers = [partial(_unpack_member, path, archive, member) for member in members]
    return _open_members(path, list(zip(names, readers, strict=True)))


def _has_matrix(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> bool:
    """Return whether a .npz holds a matrix, also with its identifiers."""
    shapes = []
    for member in members[:MAX_NAMED_ARRAYS]:
        with archives.reraise_faults(member.filename), archive.open(member) as file:
            shape, _ = read_header(file, member.file_size)  # type: ignore[arg-type]
        shapes.append(shape)

    has_matrix = any(len(shape) == 2 and shape[0] > 1 for shape in shapes)
    return has_matrix and len(members) <= MAX_NAMED_ARRAYS


def _unpack_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    label = f"{path}, {member.filename}"
    size = member.file_size
    if size > MAX_MEMBER_BYTES:  # zipfile reads no further than `file_size`
        raise UserError(
            f"{label}: {size:,} bytes unpacked; "
            f"no member of this kind has more than {MAX_MEMBER_BYTES:,}"
        )
    return b"".join(archives.read_member(archive, member, label))


def _unpack_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Return an array of a .npz, memory-mapped from an unlinked file, as it may be larger than
    memory.
    """
    label = f"{path}, {member.filename}"
    with tempfile.TemporaryFile() as file:
        for block in archives.read_member(archive, member, label):
            file.write(block)

        file.seek(0)
        version = np.lib.format.read_magic(file)
        shape, is_fortran, dtype = HEADERS[version](file)
        if dtype.hasobject or not math.prod(shape):
            raise UserError(f"{label}: expected numbers or texts, not {dtype} {shape}")
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        return np.memmap(file, dtype, "c", offset=file.tell(), shape=shape, order=order)


def _open_members(path: Path, members: list[Member]) -> VectorFile:
    if not members:
        raise no_vectors(path)
    first_name, _ = members[0]
    width = len(check_vector(path / first_name, 0, _read_vector(path, members[0]), None))
    ids = pa.table({"id": [Path(name).stem for name, _ in members]})

    def take(rows: np.ndarray) -> np.ndarray:
        vectors = ((row, _read_vector(path, members[row])) for row in rows.tolist())
        return gather_rows(path, vectors, rows, width)

    return VectorFile(path, len(members), width, take, ids)


def _read_vector(path: Path, member: Member) -> np.ndarray:
    name, read = member
    data = read()
    try:
        return _parse_npy(data)
    except Exception as e:  # see `open_npy`
        raise UserError(f"{path}, {name}: not readable ({one_line(e, 100)})") from None


def _parse_npy(data: bytes) -> np.ndarray:
    shape, _ = read_header(BytesIO(data), len(data))
    return np.load(BytesIO(data), allow_pickle=False).reshape(shape)
