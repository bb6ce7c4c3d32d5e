"""The versions that results depend on."""

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "faiss-cpu", "faiss-gpu-cu12", "duckdb", "pyarrow", "numpy", "scipy", "pillow", "simplejpeg",
             "transformers", "sentencepiece", "open_clip_torch")  # fmt: skip


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python, of alignrec and of the libraries that results depend on."""
    installed = {"python": platform.python_version()}
    for name in ("alignrec", *LIBRARIES):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def machine() -> dict[str, Any]:
    """Return what measured rates depend on: processor, cores, GPU, releases."""
    import torch  # takes seconds, which nobody else here waits for

    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next(
            (s.split(":", 1)[1].strip() for s in info.read_text().splitlines() if s.startswith("model name")), cpu
        )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "versions": versions()}
