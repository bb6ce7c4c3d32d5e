"""Where a long training left off: one safetensors file, whole or absent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline import io


@dataclass(frozen=True)
class Checkpoint:
    """A file to resume from, rewritten every so often."""

    path: Path
    every: int
    """epochs or steps, whichever the training counts"""

    def load(self) -> tuple[dict[str, Tensor], Any] | None:
        """Return the tensors and the JSON value that `save` was given last, or None."""
        if not self.path.is_file():
            return None
        with safe_open(self.path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["state"])  # noqa: SIM118

    def save(self, tensors: dict[str, Tensor], state: Any) -> None:
        """Replace the file."""
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        io.write_bytes(self.path, save(contiguous, {"state": json.dumps(state)}))

    def clear(self) -> None:
        """Delete the file: the training that it belongs to is done."""
        self.path.unlink(missing_ok=True)
