"""The versions that results depend on, and all that is installed."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


@cache
def installed() -> list[str]:
    """Return the name and release of every package that can be imported, sorted, as their folders are called."""
    folders = [Path(entry) for entry in sys.path if Path(entry).is_dir()]
    return sorted({path.name for folder in folders for path in folder.glob("*.dist-info")})
