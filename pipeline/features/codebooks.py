"""Codebooks of semantic IDs, stored next to the codes; read without FAISS.

L levels, K codes per level, F feature width.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from safetensors.numpy import save

from alignrec.pipeline import io
from alignrec.pipeline.io import arrays
from alignrec.pipeline.io.errors import UserError

CODEBOOKS_FILE = "codebooks.safetensors"
CENTROIDS = "centroids"  # name of their tensor, float32 [L, K, F]
MAX_CODES = 65_536


class ReleasedCodes(NamedTuple):
    """The semantic IDs of a feature set of a release."""

    codebooks: np.ndarray  # float32 [L, K, F]
    table: pa.Table  # schema semantic_ids(L)


def write_codebooks(path: Path, codebooks: np.ndarray) -> None:
    io.write_bytes(path, save({CENTROIDS: np.ascontiguousarray(codebooks)}))


def read_codebooks(path: Path, levels: int, width: int | None) -> np.ndarray:
    """Read untrusted codebooks, float32 [L, K, F]; UserError if they are of another shape."""
    try:
        codebooks = arrays.require_tensor(arrays.read_tensors(path), CENTROIDS, levels, None, width)
    except UserError as e:
        raise UserError(f"{path}: {str(e).removeprefix(f'{path}: ')}") from None

    codes = codebooks.shape[1]
    if codes < 2 or codes > MAX_CODES or codes & (codes - 1):
        raise UserError(f"{path}: {codes:,} codes a level, no power of two; do not trust it")
    return codebooks
