"""Arrays in somebody's `.npy` files: nothing in one is run, and nothing is reserved that its bytes do not fill."""

import math
from pathlib import Path

import numpy as np

from pipeline.errors import UserError, one_line

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # which differs in the encoding of names of fields
}
"""version of the format -> what reads a header"""


def opened(path: Path) -> np.ndarray:
    """Return the array of a `.npy` file, mapped into memory: it takes no memory until it is read.

    Raises:
        UserError: it is another file, such as a `.npz`; is cut off; or holds objects.
    """
    try:
        with path.open("rb") as f:
            version = np.lib.format.read_magic(f)
            shape, _, dtype = HEADERS[version](f)
            held = path.stat().st_size - f.tell()
        if min(shape, default=0) < 0:
            raise ValueError(f"its shape is {shape}")
        if (expected := math.prod(shape) * dtype.itemsize) != held:
            raise ValueError(f"its header promises {expected:,} bytes, and it has {held:,}")
        if not expected:
            return np.empty(shape, dtype)  # which cannot be mapped
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as e:  # a header is a Python literal, and numpy lets through what reading one may raise
        raise UserError(f"{path}: not a readable .npy file ({one_line(e, 120)})") from None
    return array
