"""Which module reads which kind of source."""

from __future__ import annotations

from types import ModuleType

from pipeline.sources import amazon2014, amazon2018, mmrec

# each has files, ratings, metadata, lines, wanted, key, parse, name and product
READERS: dict[str, ModuleType] = {
    "sample": amazon2014,  # the sticker shop writes Amazon's 2014 format
    "amazon2014": amazon2014,
    "amazon2018": amazon2018,
    "mmrec": mmrec,
}
