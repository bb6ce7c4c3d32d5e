"""Text files by lines: UTF-8, with or without a byte order mark, gzipped or not."""

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

BLOCK = 1 << 20  # bytes; lines come out of a large buffer in half the time
LONGEST_LINE = 16 << 20  # bytes; real lines stay below 1 MiB
KEPT = 1 << 16  # bytes of a line that cannot be read
MOST_BLANK = 1_000_000  # blank lines in a row: gzip packs a thousand of them into a byte
HEAD = 4096  # bytes from which the encoding is seen
MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # that of UTF-32 LE begins as UTF-16's
UNREADABLE = b"\0unreadable: "  # no JSON begins so
LONG_NUMBER = re.compile(rb"[0-9]{19}")


def open_unpacked(path: Path) -> io.BufferedReader:
    """Open a file for reading bytes, decompressed if its name ends in .gz; damage: EOFError, BadGzipFile, IsalError."""
    require_plain(path)
    if path.suffix != ".gz":
        return path.open("rb")
    return io.BufferedReader(cast(io.RawIOBase, igzip_threaded.open(path, "rb", threads=1)), BLOCK)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a text file, a longer one cut after LONGEST_LINE + 1 bytes; errors of `opened`."""
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
    """Open a text file after its byte order mark; UserError for UTF-16 or 32, or, also later, damaged gzip."""
    try:
        with open_unpacked(path) as f:
            head = f.peek(HEAD)[:HEAD]
            if 10 * head.count(0) > 9 * len(head):  # three of four are zero in UTF-32
                raise UserError(f"{path}: holds NUL bytes, not text; fetch it again")
            if head.startswith(MARKS) or 4 * head.count(0) > len(head):  # Latin letters have a zero byte each there
                raise UserError(f"{path}: is in UTF-16 or UTF-32, expected UTF-8; convert it, as `iconv -t UTF-8` does")
            if head.startswith(codecs.BOM_UTF8):
                f.read(len(codecs.BOM_UTF8))
            yield f
    except (EOFError, gzip.BadGzipFile, IsalError):  # type: ignore[misc]  # its stub calls the class an instance
        raise UserError(f"{path}: the gzip file is damaged or cut off; fetch it again, or pack it again") from None


def refuse_blank(path: Path) -> None:
    """Raise UserError for a MiB of white space, over which other readers take minutes."""
    with open_text(path) as f:
        while len(block := f.read(BLOCK)) == BLOCK:
            if block.isspace():
                raise UserError(f"{path}: contains a MiB of blank lines; is this the right file?")


class Reject(NamedTuple):
    """A line, or row, that cannot be read."""

    line: int  # number in the file, from 1
    reason: str
    raw: bytes  # of a long one the first KEPT bytes


def reject_table(file: str, rejects: Iterable[Reject]) -> pa.Table:
    rows = [{"file": file} | reject._asdict() for reject in rejects]
    return pa.Table.from_pylist(rows, pa.schema([field.remove_metadata() for field in schemas.REJECTS]))


def refuse_many(file: object, what: str, found: Sequence[Reject], total: int, most: float, key: str) -> None:
    """Raise UserError, with the commonest reasons, if more than the share `most` of lines are unreadable."""
    if len(found) > most * total:
        common = Counter(reject.reason for reject in found).most_common(3)
        reasons = ", ".join(f"{reason} ({n:,}x)" for reason, n in common)
        raise UserError(
            f"{file}: {len(found):,} of {total:,} {what} are unreadable, more than {key} = {most:g} allows: {reasons}; "
            f"the first is line {found[0].line}"
        )


def mark_unreadable(reason: str) -> bytes:
    """Return a placeholder for a row that cannot become JSON; `json_object` refuses it with this reason."""
    return UNREADABLE + one_line(reason, 100).encode("utf-8", "replace")


def json_object(line: bytes) -> dict[str, Any]:
    """Read one metadata line; ValueError, with a short message, if it is not a JSON object or nested too deeply."""
    if line.startswith(UNREADABLE):
        raise ValueError(one_line(line[len(UNREADABLE) :].decode("utf-8", "replace"), 100))
    try:
        record = orjson.loads(line)
        if LONG_NUMBER.search(line):  # an identifier may be an integer beyond 64 bits, which orjson turns into a float
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
    """Read JSON in which Python wrote NaN or Infinity, as null."""
    try:
        if b"NaN" not in line and b"Infinity" not in line:
            raise ValueError
        record = json.loads(line.decode(), parse_constant=lambda _: None)
        json.dumps(record, ensure_ascii=False).encode()  # refuses lone surrogates, which no table can hold
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("not JSON") from None
    return record
