"""Read text files by line: UTF-8 with or without BOM, optionally gzipped."""

import codecs
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import NamedTuple, cast

import pyarrow as pa
from isal import igzip_threaded
from isal.igzip_lib import IsalError

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError

BUFFER_BYTES = 1 << 20  # a large buffer halves the time to read lines
MAX_LINE_BYTES = 16 << 20  # real lines stay below 1 MiB
MAX_HEADER_BYTES = 100_000
MAX_RAW_BYTES = 1 << 16  # kept of an unreadable line
MAX_BLANK_LINES = 1_000_000  # in a row: gzip compresses a thousand into a byte
BYTES_TO_DETECT_ENCODING = 4096
# UTF-32 LE starts like UTF-16 LE
MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

# first bytes of zip, xz, 7z, Zstandard, RAR and bzip2
ARCHIVES = (
    *(b"PK\x03\x04", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c", b"\x28\xb5\x2f\xfd", b"Rar!\x1a\x07"),
    *(b"BZh%d1AY&SY" % level for level in range(1, 10)),
)


def open_unpacked(path: Path) -> BufferedReader:
    """Open a file for reading bytes, decompressing .gz.

    Damage raises EOFError, BadGzipFile or IsalError.
    """
    if path.suffix != ".gz":
        return io.open_plain(path)
    io.require_plain(path)
    unpacked = igzip_threaded.open(path, "rb", threads=1)
    return BufferedReader(cast(RawIOBase, unpacked), BUFFER_BYTES)


@contextmanager
def open_text(path: Path) -> Iterator[BufferedReader]:
    """Open a text file after its BOM.

    Raise UserError for UTF-16, UTF-32 or damaged gzip, also while reading.
    """
    try:
        with open_unpacked(path) as file:
            head = file.peek(BYTES_TO_DETECT_ENCODING)[:BYTES_TO_DETECT_ENCODING]
            _refuse_other_encodings(path, head)
            if head.startswith(codecs.BOM_UTF8):
                file.read(len(codecs.BOM_UTF8))
            yield file
    except (EOFError, gzip.BadGzipFile, IsalError):  # type: ignore[misc]  # stub: an instance
        raise UserError(
            f"{path}: the gzip file is damaged or cut off; fetch it again, or pack it again"
        ) from None


def _refuse_other_encodings(path: Path, head: bytes) -> None:
    if head.startswith(ARCHIVES) or head[257:].startswith(b"ustar"):
        raise UserError(f"{path}: an archive; unpack it, or compress it by gzip")
    zeros = head.count(0)
    if 10 * zeros > 9 * len(head):  # UTF-32 has three zeros in four bytes
        raise UserError(f"{path}: holds NUL bytes, not text; fetch it again")
    if head.startswith(MARKS) or 4 * zeros > len(head):  # UTF-16 pads Latin letters with zero bytes
        raise UserError(
            f"{path}: is in UTF-16 or UTF-32, expected UTF-8; convert it, as `iconv -t UTF-8` does"
        )


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a text file; longer ones are cut after MAX_LINE_BYTES + 1 bytes."""
    blank = 0
    with open_text(path) as file:
        for line in iter(partial(file.readline, MAX_LINE_BYTES + 1), b""):
            blank = blank + 1 if line.isspace() else 0
            if blank > MAX_BLANK_LINES:
                raise UserError(
                    f"{path}: more than {MAX_BLANK_LINES:,} blank lines in a row; "
                    "is this the right file?"
                )
            yield line
            if len(line) > MAX_LINE_BYTES:
                _skip_rest(file, line)


def _skip_rest(file: BufferedReader, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE_BYTES)


def first_line(path: Path) -> str:
    with open_text(path) as file:
        raw = file.readline(MAX_HEADER_BYTES + 1)
    line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
    if not line.strip():
        raise UserError(
            f"{path}: the file is empty; expected a first line with the names of the columns"
        )
    if len(line) > MAX_HEADER_BYTES:
        raise UserError(
            f"{path}, line 1: longer than {MAX_HEADER_BYTES:,} bytes; expected names of columns"
        )
    return line


def refuse_blank(path: Path) -> None:
    """Raise UserError for a large block of white space, which takes other readers minutes."""
    with open_text(path) as file:
        while len(block := file.read(BUFFER_BYTES)) == BUFFER_BYTES:
            if block.isspace():
                raise UserError(f"{path}: contains a MiB of blank lines; is this the right file?")


class RejectedRow(NamedTuple):
    """A line or row that cannot be read."""

    line: int  # line number from 1
    reason: str
    raw: bytes  # the first MAX_RAW_BYTES bytes


def reject_table(file: str, rejects: Iterable[RejectedRow]) -> pa.Table:
    rows = [{"file": file} | reject._asdict() for reject in rejects]
    fields = [field.remove_metadata() for field in schemas.REJECTS]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def refuse_many(
    file: object, what: str, rejects: Sequence[RejectedRow], total: int, max_share: float, key: str
) -> None:
    """Raise UserError if the share of rejects is above `max_share`, the setting `key`."""
    if len(rejects) <= max_share * total:
        return
    common = Counter(reject.reason for reject in rejects).most_common(3)
    reasons = ", ".join(f"{reason} ({n:,}x)" for reason, n in common)
    raise UserError(
        f"{file}: {len(rejects):,} of {total:,} {what} are unreadable, "
        f"more than {key} = {max_share:g} allows: {reasons}; the first is line {rejects[0].line}"
    )
