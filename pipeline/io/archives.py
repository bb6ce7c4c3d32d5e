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
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, LookupError),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError),
)
BYTES_PER_READ = 1 << 20
BYTES_PER_LZMA_READ = 1 << 12  # zipfile unpacks all that it reads at once


@contextmanager
def reraise_faults(name: str) -> Iterator[None]:
    try:
        yield
    except FAULTS as e:
        fault = one_line(e, 100) or type(e).__name__
        raise UserError(f"{name}: not readable as a zip file ({fault})") from None


def open_zip(path: Path) -> zipfile.ZipFile:
    with reraise_faults(str(path)):
        return zipfile.ZipFile(io.require_plain(path))


def read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, start: int = 0
) -> Iterator[bytes]:
    """Yield a member's bytes from `start`.

    Raise UserError if it is damaged, encrypted or packed with bzip2.
    """
    # a bzip2 block expands a kilobyte into gigabytes, and zipfile cannot bound its output
    if member.compress_type == zipfile.ZIP_BZIP2:
        raise UserError(f"{name}: bzip2 makes gigabytes of a kilobyte; pack it otherwise")

    is_lzma = member.compress_type == zipfile.ZIP_LZMA
    size = BYTES_PER_LZMA_READ if is_lzma else BYTES_PER_READ
    with reraise_faults(name), archive.open(member) as file:
        file.seek(start)
        while block := file.read(size):
            yield block
