"""Amazon review data of 2014: reviews as JSON lines or ratings as CSV, metadata lines that are Python literals.

Format: jmcauley.ucsd.edu/data/amazon. A metadata line is what Python's `repr` printed, so `ast.literal_eval` reads it
and nothing in it is run.
"""

import ast
import re
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson

from pipeline.sources import mmrec
from pipeline.sources.amazon import AmazonSource
from pipeline.sources.lines import lines as lines
from pipeline.sources.product import Product, as_list, as_text, others
from pipeline.sources.sql import rating as finite
from pipeline.sources.sql import read_csv, read_lines, stripped, trimmed

KEPT = frozenset({"asin", "title", "brand", "description", "imUrl"})  # not `categories`, of whose paths one is kept
LONGEST_LITERAL = 1 << 18  # bytes: 150 MiB and a second or two; real lines, of any syntax, have up to 100 kB

_ASIN = re.compile(rb"""['"]asin['"]: ?['"]([^'"]{1,64})['"]""")
# what is neither string nor backslash, and plain strings in single quotes; or a string in single quotes or in double
# quotes, with no escapes but those that JSON knows too and \'; or what is none of these
_PART = re.compile(
    rb"""((?:[^'"\\]+|'[^'"\\]*')++)|'([^'\\]*(?:\\[bfnrt\\'][^'\\]*)*)'|"[^"\\]*(?:\\[bfnrt\\"][^"\\]*)*"|(['"\\])"""
)


class Amazon2014(AmazonSource):
    """Amazon's review data of 2014."""

    kind: Literal["amazon2014"]


def ratings(raw: Mapping[str, Path]) -> str:
    if mmrec.INTERACTIONS in raw:
        return mmrec.ratings(raw)
    return ratings_sql(raw["reviews"], csv_columns=("user", "item", "rating", "timestamp"))


def ratings_sql(path: Path, csv_columns: tuple[str, ...]) -> str:
    """Return SQL over JSON lines of reviews, or a CSV of ratings without a header; what is unreadable is null."""
    if ".csv" in path.suffixes:
        user, item, rating, time = "user", "item", "rating", "timestamp"
        table = read_csv(path, csv_columns, header=False)
    else:
        user, item, rating, time = "reviewerID", "asin", "overall", "unixReviewTime"
        table = read_lines(path, (user, item, rating, time))
    return (
        f"SELECT {stripped(user)} AS user, {stripped(item)} AS item, {finite(trimmed(rating))} AS rating, "
        f"try_cast({trimmed(time)} AS BIGINT) AS timestamp FROM {table}"
    )


def metadata(raw: Mapping[str, Path]) -> Path | None:
    return raw.get("metadata")


def wanted(asins: list[str]) -> dict[str, int]:
    return {asin: i for i, asin in enumerate(asins)}


def found(pattern: re.Pattern[bytes], line: bytes) -> str | None:
    match = pattern.search(line)
    return match[1].decode(errors="replace") if match else None


key = partial(found, _ASIN)


def parse(line: bytes) -> dict[str, Any]:
    """Read one metadata line, a Python literal or JSON; an integer beyond 64 bits may come as a float.

    A literal that is not JSON takes 600 times its size in memory, hence LONGEST_LITERAL. ValueError: not a dictionary.
    """
    try:
        record = orjson.loads(_as_json(line))
    except (orjson.JSONDecodeError, _NoJsonError):
        record = _literal(line)
    if not isinstance(record, dict):
        raise ValueError("not a dictionary")
    return record


def _as_json(line: bytes) -> bytes:
    """Return a line in JSON's quotes if it means the same in JSON, else invalid JSON, or raise _NoJsonError.

    Reading JSON is ten times as fast as reading Python. Python's syntax (None, tuples, u'') is invalid JSON.
    """
    parts = line.split(b'"')  # every second one is the inside of a string, unless a double quote is within single ones
    if b"\\" in line or any(part.count(b"'") % 2 for part in parts[::2]):
        return _PART.sub(_requote, line)
    parts[::2] = [part.replace(b"'", b'"') for part in parts[::2]]
    return b'"'.join(parts)


def _requote(match: re.Match[bytes]) -> bytes:
    plain, inner, odd = match.groups()
    if plain is not None:
        return plain.replace(b"'", b'"')
    if inner is not None:
        return b'"%b"' % inner.replace(b"\\'", b"'").replace(b'"', b'\\"')
    if odd:
        raise _NoJsonError  # at the first odd quote: the search for a partner of each would be quadratic
    return match[0]


class _NoJsonError(Exception):
    """The line has no equivalent in JSON."""


def _literal(line: bytes) -> Any:
    if len(line) > LONGEST_LITERAL:
        raise ValueError("not JSON, and too long for a Python literal")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes such as '\d'
            return ast.literal_eval(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("not a Python literal") from None


def name(record: dict[str, Any]) -> str | None:
    asin = record.get("asin")
    return asin if isinstance(asin, str) else None


def product(record: dict[str, Any]) -> Product:
    categories = record.get("categories")
    paths = [as_list(path) for path in categories if isinstance(path, list)] if isinstance(categories, list) else []
    return Product(
        title=as_text(record.get("title")),
        brand=as_text(record.get("brand")),
        categories=max(paths, key=len, default=[]),  # the deepest; the first of equals
        description=as_text(record.get("description")),
        image_urls=as_list([record.get("imUrl")]),
        extra=others(record, KEPT),
    )
