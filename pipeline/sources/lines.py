"""Text files read by lines: UTF-8 with or without BOM, optionally gzipped."""

import codecs
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson
import pyarrow as pa
from isal import igzip_threaded
from isal.igzip_lib import IsalError

from alignrec import schemas
from alignrec.pipeline.errors import UserError, one_line
from alignrec.pipeline.io import require_plain

BLOCK = 1 << 20  # bytes; a large buffer halves the time to read lines
LONGEST_LINE = 16 << 20  # bytes; real lines stay below 1 MiB
KEPT = 1 << 16  # bytes kept of an unreadable line
MOST_BLANK = 1_000_000  # consecutive blank lines: gzip compresses a thousand into a byte
HEAD = 4096  # bytes from which the encoding is detected
MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32 LE starts like UTF-16 LE
UNREADABLE = b"\0unreadable: "  # not a prefix of any JSON
LONG_NUMBER = re.compile(rb"[0-9]{19}")


def open_unpacked(path: Path) -> io.BufferedReader:
    """Open a file for reading bytes, decompressing .gz; damage raises EOFError, BadGzipFile or IsalError."""
    require_plain(path)
    if path.suffix != ".gz":
        return path.open("rb")
    return io.BufferedReader(cast(io.RawIOBase, igzip_threaded.open(path, "rb", threads=1)), BLOCK)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a text file; longer ones are cut after LONGEST_LINE + 1 bytes."""
    blank = 0
    with open_text(path) as f:
        for line in iter(partial(f.readline, LONGEST_LINE + 1), b""):
            blank = blank + 1 if line.isspace() else 0
            if blank > MOST_BLANK:
                raise UserError(f"{path}: more than {MOST_BLANK:,} blank lines in a row; is this the right file?")
            yield line
            if len(line) > LONGEST_LINE:
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest = f.readline(LONGEST_LINE)


@contextmanager
def open_text(path: Path) -> Iterator[BufferedReader]:
    """Open a text file after its BOM; raise UserError for UTF-16, UTF-32 or damaged gzip, also while reading."""
    try:
        with open_unpacked(path) as f:
            head = f.peek(HEAD)[:HEAD]
            if 10 * head.count(0) > 9 * len(head):  # UTF-32 has three zeros in four bytes
                raise UserError(f"{path}: holds NUL bytes, not text; fetch it again")
            if head.startswith(MARKS) or 4 * head.count(0) > len(head):  # UTF-16 pads Latin letters with zero bytes
                raise UserError(f"{path}: is in UTF-16 or UTF-32, expected UTF-8; convert it, as `iconv -t UTF-8` does")
            if head.startswith(codecs.BOM_UTF8):
                f.read(len(codecs.BOM_UTF8))
            yield f
    except (EOFError, gzip.BadGzipFile, IsalError):  # type: ignore[misc]  # the stub declares an instance
        raise UserError(f"{path}: the gzip file is damaged or cut off; fetch it again, or pack it again") from None


def refuse_blank(path: Path) -> None:
    """Raise UserError for a block of only white space, on which other readers take minutes."""
    with open_text(path) as f:
        while len(block := f.read(BLOCK)) == BLOCK:
            if block.isspace():
                raise UserError(f"{path}: contains a MiB of blank lines; is this the right file?")


class Reject(NamedTuple):
    """A line or row that cannot be read."""

    line: int  # line number from 1
    reason: str
    raw: bytes  # the first KEPT bytes


def reject_table(file: str, rejects: Iterable[Reject]) -> pa.Table:
    rows = [{"file": file} | reject._asdict() for reject in rejects]
    return pa.Table.from_pylist(rows, pa.schema([field.remove_metadata() for field in schemas.REJECTS]))


def refuse_many(file: object, what: str, found: Sequence[Reject], total: int, most: float, key: str) -> None:
    if len(found) > most * total:
        common = Counter(reject.reason for reject in found).most_common(3)
        reasons = ", ".join(f"{reason} ({n:,}x)" for reason, n in common)
        raise UserError(
            f"{file}: {len(found):,} of {total:,} {what} are unreadable, more than {key} = {most:g} allows: {reasons}; "
            f"the first is line {found[0].line}"
        )


def mark_unreadable(reason: str) -> bytes:
    """Return a placeholder line for a row without a JSON form; `json_object` raises `reason` for it."""
    return UNREADABLE + one_line(reason, 100).encode("utf-8", "replace")


def json_object(line: bytes) -> dict[str, Any]:
    """Parse a JSON object; raise ValueError with a short message if that fails."""
    if line.startswith(UNREADABLE):
        raise ValueError(one_line(line[len(UNREADABLE) :].decode("utf-8", "replace"), 100))
    try:
        record = orjson.loads(line)
        if LONG_NUMBER.search(line):  # orjson turns integers beyond 64 bits into floats, and identifiers may be such
            record = json.loads(line)
    except ValueError:
        record = _parse_constants(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return require_dict(record)


def require_dict(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return record


def _parse_constants(line: bytes) -> Any:
    """Parse JSON with Python's NaN and Infinity, as null."""
    try:
        if b"NaN" not in line and b"Infinity" not in line:
            raise ValueError
        record = json.loads(line.decode(), parse_constant=lambda _: None)
        json.dumps(record, ensure_ascii=False).encode()  # refuses lone surrogates, which Arrow cannot store
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("not JSON") from None
    return record
