"""A folder with a file per item, or a zip file of one: `<identifier>.npy` as Ducho's, `<identifier>.json` as M3L's."""

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError, one_line
from pipeline.http import archives
from pipeline.sources.feature_files import LARGEST, PER_ITEM, members, read_member
from pipeline.vectors import arrays
from pipeline.vectors.base import Vectors, empty, gather, vector
from pipeline.vectors.tables import parquet

Member = tuple[str, Callable[[], bytes]]  # name, and what reads its bytes


def folder(path: Path) -> Vectors:
    if not path.is_dir():
        raise UserError(f"{path}: no folder, and its name has no ending of a known format; see docs/compare.md")
    found = members(path)
    if not found or any(path.glob("features-*.parquet")):  # a feature set, whose set.json is about it
        return parquet(path)
    return _open(path, [(file.name, lambda file=file: read_member(file)) for file in found])  # type: ignore[misc]


def archive(path: Path) -> Vectors:
    """Open a .zip, as `download` packs a folder, or a .npz with an array per item."""
    packed = archives.open_zip(path)

    def of_member(info: zipfile.ZipInfo) -> bytes:
        if info.file_size > LARGEST:
            raise UserError(f"{path}, {info.filename}: has {info.file_size:,} bytes; one item's vector has fewer")
        return b"".join(archives.read_member(packed, info, f"{path}, {info.filename}"))

    found = sorted((one for one in packed.infolist() if one.filename.endswith(PER_ITEM)), key=lambda one: one.filename)
    return _open(path, [(one.filename, lambda one=one: of_member(one)) for one in found])  # type: ignore[misc]


def _open(path: Path, found: list[Member]) -> Vectors:
    if not found:
        raise empty(path)
    width = len(vector(path / found[0][0], 0, _vector(path, found[0]), None))
    ids = pa.table({"id": [Path(name).stem for name, _ in found]})

    def take(rows: np.ndarray) -> np.ndarray:
        return gather(path, ((i, _vector(path, found[i])) for i in rows.tolist()), rows, width)

    return Vectors(path, len(found), width, take, ids)


def _vector(path: Path, member: Member) -> Any:
    name, read = member
    data = read()
    try:
        if name.endswith(".json"):
            value = json.loads(data)
            return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value
        shape, _ = arrays.header(BytesIO(data), len(data))
        return np.load(BytesIO(data), allow_pickle=False).reshape(shape)
    except Exception as e:  # see arrays.opened
        raise UserError(f"{path}, {name}: not readable ({one_line(e, 100)})") from None
