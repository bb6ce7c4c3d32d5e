"""Which module reads which kind of source, and which raw file is what."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from pipeline import io
from pipeline.sources import amazon2014, amazon2018, mmrec

# each has files, ratings, metadata, lines, wanted, key, parse, name and product
READERS: dict[str, ModuleType] = {
    "sample": amazon2014,  # the sticker shop writes Amazon's 2014 format
    "amazon2014": amazon2014,
    "amazon2018": amazon2018,
    "mmrec": mmrec,
}


def raw_files(sources: Path) -> dict[str, Path]:
    """Return role -> path of the downloaded files, from `sources.json`."""
    return {row["role"]: sources.parent / row["name"] for row in io.read_json(sources)}
