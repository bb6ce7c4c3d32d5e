"""Checkpoints of long training runs."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from alignrec.pipeline import io

Parts = dict[str, dict[str, Tensor]]  # part, such as `model` -> its tensors by name


@dataclass(frozen=True)
class Checkpoint:
    """A safetensors file from which training resumes, replaced atomically at intervals."""

    path: Path
    every: int  # epochs or steps

    def load(self) -> tuple[Parts, Any] | None:
        if not self.path.is_file():
            return None
        parts: Parts = defaultdict(dict)
        with safe_open(self.path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
            return parts, json.loads(file.metadata()["state"])

    def save(self, parts: Parts, state: Any) -> None:
        tensors = {}
        for part, tensors_of_part in parts.items():
            for name, tensor in tensors_of_part.items():
                tensors[f"{part}.{name}"] = tensor.detach().cpu().contiguous()
        # written from the tensors: serialising to bytes first would take another 9 GB for
        # BEiT3-base
        with io.atomic(self.path) as temporary:
            save_file(tensors, temporary, {"state": json.dumps(state)})

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def adam_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the state of an Adam optimizer as tensors by name, NUMBER.SLOT."""
    tensors = {}
    for number, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            tensors[f"{number}.{slot}"] = value
    return tensors


def restore_adam(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, value in tensors.items():
        number, slot = name.split(".")
        state[int(number)][slot] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": dict(state)})
