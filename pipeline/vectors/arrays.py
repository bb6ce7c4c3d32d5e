"""Readers of .npy, PyTorch tensors, one file per item, and Amazon's 2014 image features."""

import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa

from alignrec.pipeline.io import archives
from alignrec.pipeline.io.csv_rows import Row, find_delimiter, read_rows
from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.text import Reject, open_unpacked, read_lines
from alignrec.pipeline.sources import feature_files
from alignrec.pipeline.vectors.base import Vectors, check_vector, gather_rows, no_vectors
from alignrec.pipeline.vectors.tables import open_parquet

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # differs only in the encoding of field names
}  # format version -> header reader
# Amazon's "visual features" (jmcauley.ucsd.edu/data/amazon) are records of a 10-byte ASIN and 4096 little-endian
# float32. They are read in blocks, as a category's file is far larger than memory.
ASIN, WIDTH = 10, 4096  # bytes of the ASIN, and float32 numbers, of a record
RECORD = ASIN + 4 * WIDTH  # bytes per record
BLOCK = 512  # records, 8 MiB
MOST_NAMED = (
    2  # arrays of a .npz with a matrix and its identifiers; otherwise it has one array per item
)
Member = tuple[str, Callable[[], bytes]]  # name, and a function that reads its bytes


def open_npy(path: Path) -> Vectors:
    try:
        with path.open("rb") as f:
            shape, dtype = read_header(f, path.stat().st_size)
        # empty arrays cannot be mapped
        array = (
            np.load(path, mmap_mode="r", allow_pickle=False)
            if math.prod(shape)
            else np.empty(shape, dtype)
        )
    except Exception as e:  # NumPy parses the header as a Python literal, which may raise anything
        raise UserError(f"{path}: not a readable .npy file ({one_line(e, 120)})") from None
    return _open_matrix(path, array)


def _open_matrix(path: Path, array: np.ndarray) -> Vectors:
    if array.ndim != 2 or not all(array.shape) or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: is {array.dtype} {array.shape}, expected numbers [items, width]")
    count, width = array.shape
    return Vectors(path, count, width, lambda numbers: array[numbers])


def read_header(f: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of a .npy file; raise if they do not match its `size` in bytes."""
    version = np.lib.format.read_magic(f)
    shape, _, dtype = HEADERS[version](f)
    held = size - f.tell()
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    if (expected := math.prod(shape) * dtype.itemsize) != held:
        raise ValueError(f"its header promises {expected:,} bytes, and it has {held:,}")
    return shape, dtype


def open_torch(path: Path) -> Vectors:
    import torch  # slow to import

    from alignrec.pipeline.io.arrays import is_plain

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            held = load_file(path)
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises exceptions of pickle and its own
        raise UserError(
            f"{path}: not a plain tensor ({type(e).__name__}); save it with torch.save(tensor)"
        ) from None

    given = held if isinstance(held, dict) else {"": held}
    named: dict[str, Any] = {str(name): value for name, value in given.items()}
    for name, value in named.items():
        if isinstance(value, torch.Tensor):
            if not is_plain(value):
                raise UserError(
                    f"{path}: expected a dense tensor of numbers, not sparse, nested, quantised or complex"
                )
            named[name] = (
                (value.detach().float() if value.is_floating_point() else value)
                .resolve_neg()
                .numpy()
            )
    return _open_named(path, named)


def _open_named(path: Path, found: Mapping[str, Any]) -> Vectors:
    """Open named arrays: a matrix [items, width], also with its identifiers, or a vector per identifier."""
    arrays = {name: np.asarray(value) for name, value in found.items()}
    matrices = [name for name, array in arrays.items() if array.ndim == 2 and len(array) > 1]
    if len(arrays) == 1:
        return _open_matrix(path, next(iter(arrays.values())))
    if len(arrays) == 2 and len(matrices) == 1:
        matrix = arrays.pop(matrices[0])
        (name, ids), *_ = arrays.items()
        if ids.shape == (len(matrix),) and ids.dtype.kind in "iuU":
            column = name if feature_files.rank_identifier(name) >= 0 else "id"
            return replace(_open_matrix(path, matrix), ids=pa.table({column: pa.array(ids)}))
    elif arrays and not matrices:
        width = len(check_vector(path, 0, next(iter(arrays.values())), None))
        rows = np.stack(
            [check_vector(path, row, array, width) for row, array in enumerate(arrays.values())]
        )
        return replace(_open_matrix(path, rows), ids=pa.table({"id": list(arrays)}))
    listed = ", ".join(
        f"{one_line(name, 32)} {array.shape}" for name, array in [*arrays.items()][:4]
    )
    raise UserError(
        f"{path}: holds {listed}; expected one matrix [items, width], also with one array of identifiers"
    )


def open_delimited(path: Path) -> Vectors:
    """Open CSV or TSV of numbers, with or without a header and identifiers, or RecBole's item embeddings."""
    rows = read_rows(read_lines(path), find_delimiter(path) or "\t")
    first = next(rows, None)
    if not isinstance(first, Row):
        raise no_vectors(path)
    names = [
        name.partition(":")[0] for name in first.values
    ]  # RecBole: iid:token, item_emb:float_seq
    known = [i for i, name in enumerate(names) if feature_files.rank_identifier(name) >= 0]
    known.sort(key=lambda i: feature_files.rank_identifier(names[i]))
    at = next(
        iter(known), 0 if names[0] == "" else None
    )  # pandas leaves the name of its index empty
    ids, vectors = list[str](), list[np.ndarray]()
    for row in rows if at is not None or not _are_numbers(first.values) else chain([first], rows):
        if isinstance(row, Reject):
            raise UserError(f"{path}, line {row.line}: {row.reason}; repair the file")
        numbers = [value for i, value in enumerate(row.values) if i not in known and i != at]
        numbers = numbers[0].split() if len(numbers) == 1 else numbers
        if not _are_numbers(numbers):
            raise UserError(
                f"{path}, line {row.line}: not all are numbers; keep one column of identifiers and numbers"
            )
        ids += [row.values[at]] if at is not None else []
        width = len(vectors[0]) if vectors else None
        vectors.append(check_vector(path, row.line, np.array(numbers, np.float32), width))
    if not vectors:
        raise no_vectors(path)
    named = pa.table({names[at] or "id": pa.array(ids, pa.string())}) if at is not None else None
    return replace(_open_matrix(path, np.stack(vectors)), ids=named)


def _are_numbers(values: list[str]) -> bool:
    try:
        return bool(len(np.array(values, np.float32)))
    except ValueError:
        return False


def open_records(path: Path) -> Vectors:
    """Open Amazon's .b file; the first record of an ASIN wins. Raise UserError if the last record is truncated."""
    names: list[str | None] = []
    seen: set[bytes] = set()
    for _, record in _iterate_records(path):
        asin = bytes(record[:ASIN])
        names.append(None if asin in seen else asin.decode(errors="replace"))
        seen.add(asin)
    if not names:
        raise no_vectors(path)

    def take(numbers: np.ndarray) -> np.ndarray:
        rows = (
            (number, np.frombuffer(record, "<f4", offset=ASIN))
            for number, record in _iterate_records(path)
        )
        return gather_rows(path, rows, numbers, WIDTH)

    ids = pa.table({"asin": pa.array(names, pa.string())})
    return Vectors(path, len(names), WIDTH, take, ids, of_images=True)


def _iterate_records(path: Path) -> Iterator[tuple[int, memoryview]]:
    number = 0
    with open_unpacked(path) as f:
        while block := f.read(BLOCK * RECORD):
            while len(block) % RECORD and (more := f.read(RECORD - len(block) % RECORD)):
                block += more
            for start in range(0, len(block) - RECORD + 1, RECORD):
                yield number, memoryview(block)[start : start + RECORD]
                number += 1
            if rest := len(block) % RECORD:
                at = number * RECORD + rest
                raise UserError(
                    f"{path}: cut off at byte {at:,}, inside a record of {RECORD:,}; download it again"
                )


def open_folder(path: Path) -> Vectors:
    if not path.is_dir():
        raise UserError(
            f"{path}: no folder, and its name has no ending of a known format; see docs/compare.md"
        )
    found = feature_files.list_members(path)
    if not found or any(
        path.glob("features-*.parquet")
    ):  # a feature set, whose set.json is not a vector
        return open_parquet(path)
    members = [(file.name, partial(feature_files.read_member, file)) for file in found]
    return _open_members(path, members)


def open_archive(path: Path) -> Vectors:
    """Open a .zip with a file per item (as Ducho's .npy or M3L's .json), or a .npz with an array per item."""
    packed = archives.open_zip(path)

    def unpack(member: zipfile.ZipInfo) -> bytes:
        shown, size, most = f"{path}, {member.filename}", member.file_size, feature_files.LARGEST
        if size > most:  # zipfile reads no further than `file_size`
            raise UserError(
                f"{shown}: {size:,} bytes unpacked; no member of this kind has more than {most:,}"
            )
        return b"".join(archives.read_member(packed, member, shown))

    named = {
        one.filename: one
        for one in packed.infolist()
        if one.filename.endswith(feature_files.PER_ITEM)
    }
    found = [
        named[name]
        for name in sorted(named)
        if not feature_files.is_hidden(name.rpartition("/")[2])
    ]
    heads = list[tuple[int, ...]]()
    for one in found[:MOST_NAMED] if path.suffix == ".npz" else ():
        with archives.reraise_faults(one.filename), packed.open(one) as file:
            heads.append(read_header(file, one.file_size)[0])  # type: ignore[arg-type]
    if len(found) <= MOST_NAMED and any(len(shape) == 2 and shape[0] > 1 for shape in heads):
        return _open_named(
            path,
            {one.filename.removesuffix(".npy"): _unpack_array(path, packed, one) for one in found},
        )
    return _open_members(path, [(one.filename, lambda one=one: unpack(one)) for one in found])  # type: ignore[misc]


def _unpack_array(path: Path, packed: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Return an array of a .npz, memory-mapped from an unlinked file, as it may be larger than memory."""
    with tempfile.TemporaryFile() as file:
        for block in archives.read_member(packed, member, f"{path}, {member.filename}"):
            file.write(block)
        file.seek(0)
        version = np.lib.format.read_magic(file)
        shape, is_fortran, dtype = HEADERS[version](file)
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        if dtype.hasobject or not math.prod(shape):
            raise UserError(
                f"{path}, {member.filename}: expected numbers or texts, not {dtype} {shape}"
            )
        return np.memmap(file, dtype, "c", offset=file.tell(), shape=shape, order=order)


def _open_members(path: Path, found: Sequence[Member]) -> Vectors:
    if not found:
        raise no_vectors(path)
    width = len(check_vector(path / found[0][0], 0, _read_vector(path, found[0]), None))
    ids = pa.table({"id": [Path(name).stem for name, _ in found]})

    def take(rows: np.ndarray) -> np.ndarray:
        return gather_rows(
            path, ((i, _read_vector(path, found[i])) for i in rows.tolist()), rows, width
        )

    return Vectors(path, len(found), width, take, ids)


def _read_vector(path: Path, member: Member) -> Any:
    name, read = member
    data = read()
    try:
        if name.endswith(".json"):
            value = json.loads(data)
            return (
                next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value
            )
        shape, _ = read_header(BytesIO(data), len(data))
        return np.load(BytesIO(data), allow_pickle=False).reshape(shape)
    except Exception as e:  # see `open_npy`
        raise UserError(f"{path}, {name}: not readable ({one_line(e, 100)})") from None
