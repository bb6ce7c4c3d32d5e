"""The rotation of a released encoder: a map that is applied after the encoder of the set itself.

A part of a combined set is used without its rotation, as it was when the combination was fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from alignrec.pipeline import io
from alignrec.pipeline.features.folder import Facts
from alignrec.pipeline.io import arrays
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.rotation import rotate

if TYPE_CHECKING:
    from torch import Tensor

    from alignrec.pipeline.encoders.chunks import Reading
    from alignrec.pipeline.encoders.registry import Encoder

ROTATION = "rotation"  # key of its digest in fingerprints, and name of its tensor
ROTATION_FILE = "rotation.safetensors"
ORTHONORMAL_WITHIN = 1e-4  # of the products of its rows, which float32 rounds


class RotatedEncoder:
    """Encoder whose vectors are rotated."""

    def __init__(self, encoder: Encoder, rotation: np.ndarray) -> None:
        self._encoder = encoder
        self._rotation = rotation  # float32 [F, W]
        self.width = int(rotation.shape[1])

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Any:
        return self._encoder.prepare(images, texts)

    def encode(self, prepared: Any) -> Tensor:
        import torch

        vectors = self._encoder.encode(prepared).cpu().numpy()
        return torch.from_numpy(rotate(vectors, self._rotation))

    def reading(self, texts: Sequence[str]) -> Reading | None:
        reading = getattr(self._encoder, "reading", None)
        return None if reading is None else reading(texts)


def digest_rotation(rotation: np.ndarray) -> str:
    return hashlib.sha256(_to_bytes(rotation)).hexdigest()


def write_rotation(folder: Path, rotation: np.ndarray) -> None:
    io.write_bytes(folder / ROTATION_FILE, _to_bytes(rotation))


def _to_bytes(rotation: np.ndarray) -> bytes:
    return save({ROTATION: np.ascontiguousarray(rotation)})


def read_rotation(folder: Path, facts: Facts) -> np.ndarray | None:
    """Read the rotation of an encoder, which is untrusted, float32 [F, W]; None if it has none.

    UserError if it is not the one that its set was made with, or no rotation.
    """
    path = folder / ROTATION_FILE
    if ROTATION not in facts.fingerprint and not path.exists():
        return None
    try:
        rotation = arrays.require_tensor(arrays.read_tensors(path), ROTATION, None, None)
    except UserError as e:
        raise UserError(f"{path}: {str(e).removeprefix(f'{path}: ')}") from None

    if digest_rotation(rotation) != facts.fingerprint.get(ROTATION):
        raise UserError(f"{path}: not the rotation of this set; do not trust it")
    gram = rotation @ rotation.T
    if not np.allclose(gram, np.eye(len(gram)), atol=ORTHONORMAL_WITHIN):
        raise UserError(f"{path}: its rows are not orthonormal; do not trust it")
    return rotation


def rotate_encoder(folder: Path, facts: Facts, encoder: Encoder) -> Encoder:
    """Return the encoder with the rotation of its folder, if it has one."""
    rotation = read_rotation(folder, facts)
    if rotation is None:
        return encoder
    if len(rotation) != encoder.width:
        raise UserError(
            f"{folder / ROTATION_FILE}: "
            f"for {len(rotation)} columns, and the encoder gives {encoder.width}; do not trust it"
        )
    return RotatedEncoder(encoder, rotation)


def rotate_index(folder: Path, rotation: np.ndarray) -> None:
    """Let a folder's FAISS index, if there is one, take rotated vectors: it turns them back."""
    path = folder / "items.faiss"
    if not path.is_file():
        return
    import faiss

    width, rotated_width = rotation.shape
    back = faiss.LinearTransform(rotated_width, width, False)
    faiss.copy_array_to_vector(rotation.reshape(-1), back.A)  # [F, W]
    back.is_trained = True
    back.is_orthonormal = True
    index = faiss.IndexPreTransform(back, faiss.read_index(str(path)))
    with io.atomic(path) as temporary:
        faiss.write_index(index, str(temporary))

    facts = io.read_json(folder / "index.json")
    io.write_json(folder / "index.json", facts | {"width": rotated_width})
