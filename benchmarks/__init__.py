"""Speed and memory beside a reference, in one run on one machine: `make bench`, or `python -m benchmarks [name ...]`.

A benchmark is a module here with `run() -> Measurement`; the file's name is the benchmark's name.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.io import write_json
from pipeline.run import versions

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Measurement:
    """One comparison. `ratio` says how many times better ours is, whichever way the unit points."""

    ours: float
    reference: float
    unit: str
    """of ours, reference and limit: `items/s`, `s/epoch`, ..."""
    higher_is_better: bool
    limit: float
    """the physical limit in the same unit, measured or computed on this machine"""
    limit_is: str
    """what sets the limit and how it was found: GEMM rate, memory bandwidth, disk"""
    what: str
    """the work, and what the reference is"""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Return how many times better ours is than the reference."""
        return self.ours / self.reference if self.higher_is_better else self.reference / self.ours

    @property
    def share_of_limit(self) -> float:
        """Return how much of the physical limit ours reaches, 0 .. 1."""
        return self.ours / self.limit if self.higher_is_better else self.limit / self.ours


def save(name: str, m: Measurement) -> Path:
    """Write benchmarks/results/<name>.json and return its path."""
    path = RESULTS / f"{name}.json"
    write_json(path, asdict(m) | {"ratio": m.ratio, "share_of_limit": m.share_of_limit, "machine": machine()})
    return path


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, cores, GPU, releases."""
    import torch

    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next(
            (s.split(":", 1)[1].strip() for s in info.read_text().splitlines() if s.startswith("model name")), cpu
        )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "versions": versions()}
