"""Versions and machine facts that results depend on."""

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "faiss-cpu", "faiss-gpu-cu12", "duckdb", "pyarrow", "numpy", "scipy", "pillow", "simplejpeg",
             "transformers", "sentencepiece", "open_clip_torch")  # fmt: skip


@cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | installed_versions(("alignrec", *LIBRARIES))


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def processor_name() -> str:
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def describe_machine(device: str) -> str:
    description = f"{platform.system()}, {processor_name()}, {os.cpu_count()} cores"
    if device.startswith("cuda"):
        import torch  # already loaded if a GPU was used

        description += f", {torch.cuda.get_device_name(device)}"
    return description


def machine_facts() -> dict[str, Any]:
    import torch  # takes seconds to load

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": processor_name(), "cores": os.cpu_count(), "gpu": gpu, "versions": versions()}
