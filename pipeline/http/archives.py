"""Untrusted zip archives: what Python's zipfile raises becomes one line with the file's name."""

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError, one_line

FAULTS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, LookupError, NotImplementedError,
    RuntimeError, OverflowError, MemoryError,
)  # fmt: skip
PIECE = 1 << 12  # bytes to read of an LZMA or bzip2 member at a time: zipfile unpacks everything that it reads at once


def opened(path: Path, shown: str = "") -> zipfile.ZipFile:
    shown = shown or str(path)
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise UserError(f"{shown}: a pipe or device, and no zip file")
    with readable(shown):
        try:
            return zipfile.ZipFile(path)
        except FileNotFoundError:
            raise UserError(f"{shown}: no such file") from None


@contextmanager
def readable(shown: str) -> Iterator[None]:
    try:
        yield
    except FAULTS as e:
        raise UserError(f"{shown}: not readable as a zip file ({one_line(e, 100) or type(e).__name__})") from None
