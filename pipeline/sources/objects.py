"""Untrusted lines of JSON as objects."""

import json
import re
from typing import Any

import orjson

from pipeline.errors import one_line

UNREADABLE = b"\0unreadable: "  # no JSON begins so
LONG_NUMBER = re.compile(rb"[0-9]{19}")
LENIENT = re.compile(rb"NaN|Infinity|[0-9]{300}")  # no JSON to orjson; Python writes the first two
MOST_DIGITS = 4000  # of a whole number; longer ones stay text


def unreadable(reason: str) -> bytes:
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
    except orjson.JSONDecodeError:
        record = _parse_lenient(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return record


def _parse_lenient(line: bytes) -> Any:
    if not LENIENT.search(line):
        raise ValueError("not JSON")
    try:
        record = json.loads(line.decode(), parse_constant=lambda _: None, parse_int=_whole)
        json.dumps(record, ensure_ascii=False).encode()  # refuses lone surrogates, which no table can hold
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("not JSON") from None
    return record


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits
