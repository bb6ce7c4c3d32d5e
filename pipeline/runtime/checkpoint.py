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
            for name in file.keys():  # noqa: SIM118
                part, _, own = name.partition(".")
                parts[part][own] = file.get_tensor(name)
            return parts, json.loads(file.metadata()["state"])

    def save(self, parts: Parts, state: Any) -> None:
        # written from the tensors: serialising to bytes first would take another 9 GB for BEiT3-base
        named = (
            (f"{part}.{name}", x) for part, tensors in parts.items() for name, x in tensors.items()
        )
        contiguous = {name: x.detach().cpu().contiguous() for name, x in named}
        with io.atomic(self.path) as temporary:
            save_file(contiguous, temporary, {"state": json.dumps(state)})

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def adam_state(optimizer: Optimizer) -> dict[str, Tensor]:
    slots = optimizer.state_dict()["state"].items()
    return {f"{number}.{name}": value for number, own in slots for name, value in own.items()}


def restore_adam(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        slots.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
