"""Checkpoints of long training runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from alignrec.pipeline import io


@dataclass(frozen=True)
class Checkpoint:
    """One safetensors file to resume from, rewritten atomically at intervals."""

    path: Path
    every: int  # epochs or steps

    def load(self) -> tuple[dict[str, Tensor], Any] | None:
        if not self.path.is_file():
            return None
        with safe_open(self.path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["state"])  # noqa: SIM118

    def save(self, tensors: dict[str, Tensor], state: Any) -> None:
        # written from the tensors: serialising to bytes first would take another 9 GB for BEiT3-base
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with io.atomic(self.path) as temporary:
            save_file(contiguous, temporary, {"state": json.dumps(state)})

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def prefix_names(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): x for name, x in tensors.items() if name.startswith(f"{part}.")}


def adam_state(optimizer: Optimizer) -> dict[str, Tensor]:
    slots = optimizer.state_dict()["state"].items()
    return {f"{number}.{name}": value for number, own in slots for name, value in own.items()}


def restore_adam(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        slots.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
