"""The machine and the libraries that results depend on."""

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("torch", "faiss-cpu", "faiss-gpu", "duckdb", "pyarrow", "numpy", "scipy", "pillow"),
    *("simplejpeg", "tokenizers", "transformers", "sentencepiece", "open_clip_torch"),
)


@cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | installed_versions(("alignrec", *LIBRARIES))


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    installed = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def processor_name() -> str:
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
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
