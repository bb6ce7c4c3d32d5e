"""Read named arrays from untrusted safetensors files. Only `is_plain` needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.io.files import require_plain

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, np.ndarray]  # name -> array
AGAIN = "make or fetch it again"


@contextmanager
def _reraise_faults(path: Path) -> Iterator[None]:
    if not path.exists():
        raise UserError(f"{path}: not there; {AGAIN}")
    try:
        yield
    except (
        OSError,
        SafetensorError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        MemoryError,
    ) as e:
        raise UserError(f"{path}: not readable ({one_line(e)}); {AGAIN}") from None


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    with _reraise_faults(path):
        return load_file(require_plain(path))


def read_shapes(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name -> dtype and shape, without reading the tensors."""
    shapes = {}
    with _reraise_faults(path), safe_open(require_plain(path), "np") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_slice(name)
            shapes[name] = (tensor.get_dtype(), tuple(tensor.get_shape()))
    return shapes


def refuse_infinite(path: Path) -> None:
    with _reraise_faults(path), safe_open(require_plain(path), "np") as file:
        names = list(file.keys())
        infinite = [name for name in names if not np.isfinite(file.get_tensor(name)).all()]
    if infinite:
        name = one_line(infinite[0], 64)
        raise UserError(f"{path}: tensor '{name}' holds values that are not finite; {AGAIN}")


def require_tensor(
    tensors: Tensors, name: str, *shape: int | None, dtype: type[np.generic] = np.float32
) -> np.ndarray:
    """Return a tensor.

    Raise UserError unless it is finite and of this dtype and shape (None: any size above 0).
    """
    if name not in tensors:
        raise UserError(f"no tensor '{name}'; there are {one_line(', '.join(tensors)) or 'none'}")

    x = tensors[name]
    if x.dtype != dtype or not _has_shape(x, shape):
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise UserError(
            f"tensor '{name}' is {x.dtype} {list(x.shape)}, expected {np.dtype(dtype)} [{sizes}]"
        )
    if not np.isfinite(x).all():
        raise UserError(f"tensor '{name}' holds values that are not finite")
    return x


def _has_shape(x: np.ndarray, shape: Sequence[int | None]) -> bool:
    if x.ndim != len(shape):
        return False
    for size, expected in zip(x.shape, shape, strict=True):
        if size != expected and (expected is not None or size == 0):
            return False
    return True


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense, real and backed by storage of its full size."""
    import torch  # slow to import

    if tensor.layout != torch.strided or tensor.is_nested:
        return False
    if tensor.is_meta or tensor.is_quantized or tensor.is_complex():
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
