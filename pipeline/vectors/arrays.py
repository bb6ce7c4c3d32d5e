"""Readers of .npy and PyTorch tensors, also with identifiers, as in an .npz."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.vectors.base import VectorFile, check_vector
from alignrec.pipeline.vectors.identifiers import rank_identifier

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # differs only in the encoding of field names
}  # format version -> header reader
MAX_SHOWN_ARRAYS = 4  # in a message


def open_npy(path: Path) -> VectorFile:
    try:
        with path.open("rb") as f:
            shape, dtype = read_header(f, path.stat().st_size)
        is_empty = not math.prod(shape)  # so that it cannot be mapped
        array = np.empty(shape, dtype) if is_empty else np.load(path, "r", allow_pickle=False)
    except Exception as e:  # NumPy parses the header as a Python literal, which may raise anything
        raise UserError(f"{path}: not a readable .npy file ({one_line(e, 120)})") from None
    return open_matrix(path, array)


def open_matrix(path: Path, array: np.ndarray) -> VectorFile:
    if array.ndim != 2 or not all(array.shape) or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: is {array.dtype} {array.shape}, expected numbers [items, width]")
    count, width = array.shape
    return VectorFile(path, count, width, lambda numbers: array[numbers])


def read_header(f: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of a .npy file; raise if they do not match its `size` in bytes."""
    version = np.lib.format.read_magic(f)
    shape, _, dtype = HEADERS[version](f)
    data_bytes = size - f.tell()
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")

    expected_bytes = math.prod(shape) * dtype.itemsize
    if expected_bytes != data_bytes:
        raise ValueError(f"its header promises {expected_bytes:,} bytes, and it has {data_bytes:,}")
    return shape, dtype


def open_torch(path: Path) -> VectorFile:
    """Open a tensor, or named tensors, from a PyTorch or safetensors file."""
    import torch  # slow to import

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises exceptions of pickle and its own
        raise UserError(
            f"{path}: not a plain tensor ({type(e).__name__}); save it with torch.save(tensor)"
        ) from None

    values = content if isinstance(content, dict) else {"": content}
    arrays: dict[str, Any] = {}
    for name, value in values.items():
        is_tensor = isinstance(value, torch.Tensor)
        arrays[str(name)] = _tensor_array(path, value) if is_tensor else value
    return open_named(path, arrays)


def _tensor_array(path: Path, tensor: Any) -> np.ndarray:
    from alignrec.pipeline.io.arrays import is_plain

    if not is_plain(tensor):
        raise UserError(
            f"{path}: expected a dense tensor of numbers, not sparse, nested, quantised or complex"
        )
    values = tensor.detach().float() if tensor.is_floating_point() else tensor
    return values.resolve_neg().numpy()


def open_named(path: Path, values: Mapping[str, Any]) -> VectorFile:
    """Open named arrays: a matrix [items, width], also with its identifiers, or a vector per
    identifier.
    """
    arrays = {name: np.asarray(value) for name, value in values.items()}
    matrices = [name for name, array in arrays.items() if array.ndim == 2 and len(array) > 1]
    if len(arrays) == 1:
        return open_matrix(path, next(iter(arrays.values())))

    if len(arrays) == 2 and len(matrices) == 1:
        matrix = arrays[matrices[0]]
        name, ids = next(pair for pair in arrays.items() if pair[0] != matrices[0])
        if ids.shape == (len(matrix),) and ids.dtype.kind in "iuU":
            column = name if rank_identifier(name) >= 0 else "id"
            return replace(open_matrix(path, matrix), ids=pa.table({column: pa.array(ids)}))

    elif arrays and not matrices:
        return _open_vectors(path, arrays)

    shapes = [f"{one_line(name, 32)} {array.shape}" for name, array in arrays.items()]
    listed = ", ".join(shapes[:MAX_SHOWN_ARRAYS])
    raise UserError(
        f"{path}: holds {listed}; "
        "expected one matrix [items, width], also with one array of identifiers"
    )


def _open_vectors(path: Path, arrays: Mapping[str, np.ndarray]) -> VectorFile:
    width = len(check_vector(path, 0, next(iter(arrays.values())), None))
    rows = [check_vector(path, row, array, width) for row, array in enumerate(arrays.values())]
    return replace(open_matrix(path, np.stack(rows)), ids=pa.table({"id": list(arrays)}))
