"""Read members of untrusted zip archives in bounded memory."""

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError, one_line

# exceptions of zipfile for damaged members and unsupported compression
FAULTS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, LookupError, NotImplementedError,
    RuntimeError, OverflowError, MemoryError,
)  # fmt: skip
BLOCK = 1 << 20  # bytes read at a time
PIECE = (
    1 << 12
)  # bytes read at a time from an LZMA member, as zipfile unpacks all that it reads at once


@contextmanager
def reraise_faults(shown: str) -> Iterator[None]:
    try:
        yield
    except FAULTS as e:
        raise UserError(
            f"{shown}: not readable as a zip file ({one_line(e, 100) or type(e).__name__})"
        ) from None


def open_zip(path: Path) -> zipfile.ZipFile:
    with reraise_faults(str(path)):
        return zipfile.ZipFile(io.require_plain(path))


def read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, shown: str, start: int = 0
) -> Iterator[bytes]:
    """Yield a member's bytes from `start`; raise UserError if it is damaged, encrypted or packed with bzip2."""
    # a bzip2 block expands a kilobyte into gigabytes, and zipfile cannot bound its output
    if member.compress_type == zipfile.ZIP_BZIP2:
        raise UserError(f"{shown}: bzip2 makes gigabytes of a kilobyte; pack it otherwise")
    size = PIECE if member.compress_type == zipfile.ZIP_LZMA else BLOCK
    with reraise_faults(shown), archive.open(member) as file:
        file.seek(start)
        while block := file.read(size):
            yield block
