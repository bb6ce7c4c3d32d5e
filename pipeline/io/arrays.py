"""Read named arrays from untrusted safetensors files. Only `is_plain` needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from alignrec.pipeline.io.errors import UserError, one_line

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, np.ndarray]  # name -> array
AGAIN = "make or fetch it again"


@contextmanager
def _reraise_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {AGAIN}") from None
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
        return load_file(path)


def read_shapes(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    with _reraise_faults(path), safe_open(path, "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}


def refuse_infinite(path: Path) -> None:
    with _reraise_faults(path), safe_open(path, "np") as file:
        names = [name for name in file.keys() if not np.isfinite(file.get_tensor(name)).all()]  # noqa: SIM118
    if names:
        raise UserError(
            f"{path}: tensor '{one_line(names[0], 64)}' holds values that are not finite; {AGAIN}"
        )


def require_tensor(
    tensors: Tensors, name: str, *shape: int | None, dtype: type[np.generic] = np.float32
) -> np.ndarray:
    """Return a tensor; raise UserError unless it is finite and of this dtype and shape (None: any size above 0)."""
    if name not in tensors:
        raise UserError(f"no tensor '{name}'; there are {one_line(', '.join(tensors)) or 'none'}")
    x = tensors[name]
    expected = (
        f"{np.dtype(dtype)} [{', '.join('any' if size is None else str(size) for size in shape)}]"
    )
    pairs = zip(x.shape, shape, strict=True)
    fits = x.ndim == len(shape) and all(
        have == want if want is not None else have > 0 for have, want in pairs
    )
    if not fits or x.dtype != dtype:
        raise UserError(f"tensor '{name}' is {x.dtype} {list(x.shape)}, expected {expected}")
    if not np.isfinite(x).all():
        raise UserError(f"tensor '{name}' holds values that are not finite")
    return x


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense, real and backed by storage of its full size."""
    import torch  # slow to import

    odd = (
        tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta or tensor.is_quantized
    )
    if odd or tensor.is_complex():
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
