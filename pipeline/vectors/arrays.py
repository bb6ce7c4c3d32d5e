"""Arrays in files: .npy as MMRec and the authors have it, raw float32 without a header, and tensors of PyTorch."""

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.errors import UserError, one_line
from pipeline.vectors.base import Vectors, identified, vector

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # which differs in the encoding of names of fields
}  # version of the format -> what reads a header


def npy(path: Path, dim: int | None = None) -> Vectors:
    return _rows(path, opened(path))


def raw(path: Path, dim: int | None) -> Vectors:
    """Open float32, little-endian, without a header, `dim` numbers a row, as AmazonReviews2023 writes it."""
    if dim is None:
        raise UserError(f"{path}: raw float32 needs its width; give `dim`, the numbers of a row")
    size = path.stat().st_size
    if not size or size % (4 * dim):
        raise UserError(f"{path}: has {size:,} bytes, no multiple of 4 x dim = {4 * dim:,}; is dim right?")
    return _rows(path, np.memmap(path, "<f4", "r", shape=(size // (4 * dim), dim)))


def _rows(path: Path, array: np.ndarray) -> Vectors:
    if array.ndim != 2 or not all(array.shape) or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: is {array.dtype} {array.shape}, expected numbers [items, width]")
    count, width = array.shape
    return Vectors(path, count, width, lambda numbers: array[numbers])


def opened(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as f:
            shape, dtype = header(f, path.stat().st_size)
        if not math.prod(shape):
            return np.empty(shape, dtype)  # which cannot be mapped
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as e:  # a header is a Python literal, and numpy lets through what reading one may raise
        raise UserError(f"{path}: not a readable .npy file ({one_line(e, 120)})") from None
    return array


def header(f: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of a .npy file of `size` bytes; ValueError, or others, if they do not fit its size."""
    version = np.lib.format.read_magic(f)
    shape, _, dtype = HEADERS[version](f)
    held = size - f.tell()
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    if (expected := math.prod(shape) * dtype.itemsize) != held:
        raise ValueError(f"its header promises {expected:,} bytes, and it has {held:,}")
    return shape, dtype


def torch(path: Path, dim: int | None = None) -> Vectors:
    """Open a .pt file: a tensor [items, width], also in a dictionary of one; or identifier -> tensor [width]."""
    import torch  # slow

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises many kinds, pickle's and its own
        raise UserError(f"{path}: not a plain tensor ({type(e).__name__}); save it with torch.save(tensor)") from None
    if isinstance(held, dict) and len(held) == 1 and getattr(next(iter(held.values())), "ndim", 0) == 2:
        held = next(iter(held.values()))
    if isinstance(held, dict) and held and all(isinstance(value, torch.Tensor) for value in held.values()):
        tensors = [_plain(path, tensor) for tensor in held.values()]
        width = len(vector(path, 0, tensors[0], None))
        return identified(path, [*map(str, held)], lambda _: enumerate(tensors), width)
    if not isinstance(held, torch.Tensor):
        raise UserError(f"{path}: holds {type(held).__name__}, expected one tensor [items, width]")
    return _rows(path, _plain(path, held))


def _plain(path: Path, tensor: Any) -> np.ndarray:
    from pipeline.ops.arrays import is_plain

    if not is_plain(tensor):
        raise UserError(f"{path}: expected a dense tensor of numbers, not sparse, nested, quantised or complex")
    array: np.ndarray = tensor.detach().float().numpy()
    return array
