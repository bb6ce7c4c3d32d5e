"""JSON: objects with an identifier and a vector, in lines or an array, or one object identifier -> vector, as M3L's.

A document is read value by value, so that memory grows with its longest value.
"""

import codecs
import json as syntax
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.sources.feature_files import NAMES, rank
from pipeline.sources.lines import LONGEST_LINE, opened
from pipeline.vectors.base import Vectors, empty, gathered, vector

BLOCK = 1 << 16
Named = tuple[str, Any, Any]  # name of the identifier, identifier and vector
LARGEST = 1 << 63
MAPPED = "id"  # what the keys of an object identifier -> vector are called
DECODER = syntax.JSONDecoder()
BLANK = " \t\r\n"


def json(path: Path, dim: int | None = None) -> Vectors:
    """Open JSON or JSON lines, gzipped or not; UserError if a value is no vector, or has no identifier."""
    names: list[str | int] = []
    column, width = "", None
    for row, (key, name, value) in enumerate(_values(path)):
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise UserError(f"{path}, row {row}: no identifier: one of {', '.join(NAMES)}")
        width, column = len(vector(path, row, value, width)), column or key
        names.append(name)
    if width is None:
        raise empty(path)

    def take(numbers: np.ndarray) -> np.ndarray:
        return gathered(path, ((row, value) for row, (*_, value) in enumerate(_values(path))), numbers, width)

    numbers = all(isinstance(name, int) and abs(name) < LARGEST for name in names)  # which may then be ours
    ids = pa.array(names, pa.int64()) if numbers else pa.array(map(str, names), pa.string())
    return Vectors(path, len(names), width, take, pa.table({column: ids}))


def _values(path: Path) -> Iterator[Named]:
    with opened(path) as f:
        head = f.peek(1)[:4096].lstrip()
        if head.startswith(b"[") or (head.startswith(b"{") and not _is_line(path)):
            yield from Document(path, f).values()
            return
        for row, line in enumerate(iter(partial(f.readline, LONGEST_LINE + 1), b"")):
            if line.strip():
                yield _split(path, row, _parsed(path, row, line))


def _is_line(path: Path) -> bool:
    with opened(path) as f:
        first = next((line for line in iter(partial(f.readline, LONGEST_LINE + 1), b"") if line.strip()), b"")
    try:
        value = orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and any(rank(key) >= 0 for key in value)


def _parsed(path: Path, row: int, line: bytes) -> Any:
    if len(line) > LONGEST_LINE:
        raise UserError(f"{path}, line {row + 1}: longer than {LONGEST_LINE:,} bytes")
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        pass
    try:
        return syntax.loads(line)  # which knows NaN, refused later by its row
    except (ValueError, RecursionError):
        raise UserError(f"{path}, line {row + 1}: is no JSON") from None


def _split(path: Path, row: int, value: Any) -> Named:
    if not isinstance(value, dict):
        raise UserError(f"{path}, row {row}: is no object with an identifier and a vector")
    known = sorted((key for key in value if rank(key) >= 0), key=rank)
    lists = [k for k in value if isinstance(value[k], list) and value[k] and type(value[k][0]) in (int, float)]
    if len(lists) != 1:
        found = ", ".join(lists) or "none"
        raise UserError(f"{path}, row {row}: {len(lists)} lists of numbers ({found}), expected one")
    return known[0] if known else "", value[known[0]] if known else None, value[lists[0]]


class Document:
    """A JSON array or object, whose values are read one at a time."""

    def __init__(self, path: Path, f: BinaryIO) -> None:
        self.path, self.f = path, f
        self.text = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.ended = False

    def values(self) -> Iterator[Named]:
        is_object = self._mark("[{") == "{"
        row = 0
        while self._next() not in "]}":
            if is_object:
                name = self._value(row)
                self._mark(":")
                yield MAPPED, name, self._value(row)
            else:
                yield _split(self.path, row, self._value(row))
            row += 1
            if self._next() not in "]}":
                self._mark(",")
        self._mark("]}")

    def _more(self) -> None:
        if len(self.text) > LONGEST_LINE:
            raise UserError(f"{self.path}: a value is longer than {LONGEST_LINE:,} characters")
        data = self.f.read(max(BLOCK, len(self.text)))
        self.ended = not data
        try:
            self.text += self.decoder.decode(data, final=self.ended)
        except UnicodeDecodeError:
            raise UserError(f"{self.path}: is not UTF-8") from None

    def _next(self) -> str:
        self.text = self.text.lstrip(BLANK)
        while not self.text:
            if self.ended:
                raise UserError(f"{self.path}: the JSON is cut off")
            self._more()
            self.text = self.text.lstrip(BLANK)
        return self.text[0]

    def _mark(self, marks: str) -> str:
        found = self._next()
        if found not in marks:
            raise UserError(f"{self.path}: is no JSON: {found!r} in place of {' or '.join(marks)}")
        self.text = self.text[1:]
        return found

    def _value(self, row: int) -> Any:
        self._next()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text)
            except RecursionError:
                raise UserError(f"{self.path}, row {row}: nested too deeply") from None
            except ValueError:
                end = len(self.text)
            if end < len(self.text):  # a number may go on where the text ends
                self.text = self.text[end:]
                return value
            if self.ended:
                raise UserError(f"{self.path}, row {row}: is no JSON, or is cut off") from None
            self._more()
