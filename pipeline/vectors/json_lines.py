"""Reader of JSON lines: an object with an identifier and a vector per line."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import MAX_LINE_BYTES, read_lines
from alignrec.pipeline.vectors.base import VectorFile, check_vector, gather_rows, no_vectors
from alignrec.pipeline.vectors.identifiers import IDENTIFIER_COLUMNS, rank_identifier

ID_LIMIT = 1 << 63  # integers of this size and above are texts, as int64 cannot hold them


class NamedVector(NamedTuple):
    """A vector with its identifier, not yet checked."""

    column: str  # identifier column
    identifier: Any
    vector: Any


def open_json_lines(path: Path) -> VectorFile:
    names: list[str | int] = []
    column = ""
    width: int | None = None
    for row, item in enumerate(_iterate_vectors(path)):
        name = item.identifier
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise _no_identifier(path, row)
        width = len(check_vector(path, row, item.vector, width))
        column = column or item.column
        names.append(name)
    if width is None:
        raise no_vectors(path)

    def take(numbers: np.ndarray) -> np.ndarray:
        rows = ((row, item.vector) for row, item in enumerate(_iterate_vectors(path)))
        return gather_rows(path, rows, numbers, width)

    return VectorFile(path, len(names), width, take, pa.table({column: _identifier_array(names)}))


def _identifier_array(names: list[str | int]) -> pa.Array:
    # integers may be item numbers
    if all(isinstance(name, int) and abs(name) < ID_LIMIT for name in names):
        return pa.array(names, pa.int64())
    return pa.array(map(str, names), pa.string())


def _iterate_vectors(path: Path) -> Iterator[NamedVector]:
    for row, line in enumerate(read_lines(path)):
        if line.strip():
            yield _split_object(path, row, _parse_line(path, row, line))


def _parse_line(path: Path, row: int, line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise UserError(f"{path}, line {row + 1}: longer than {MAX_LINE_BYTES:,} bytes")
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(line)
    try:
        return json.loads(line)  # accepts NaN, which is rejected later with its row number
    except (ValueError, RecursionError):
        raise UserError(f"{path}, line {row + 1}: not JSON lines") from None


def _split_object(path: Path, row: int, value: Any) -> NamedVector:
    if not isinstance(value, dict):
        raise UserError(f"{path}, row {row}: not an object with an identifier and a vector")

    lists = [key for key in value if _is_vector(value[key])]
    if len(lists) != 1:
        names = ", ".join(lists) or "none"
        raise UserError(f"{path}, row {row}: {len(lists)} lists of numbers ({names}), expected one")

    identifiers = [key for key in value if rank_identifier(key) >= 0]
    if not identifiers:
        raise _no_identifier(path, row)
    column = min(identifiers, key=rank_identifier)
    return NamedVector(column, value[column], value[lists[0]])


def _no_identifier(path: Path, row: int) -> UserError:
    columns = ", ".join(IDENTIFIER_COLUMNS)
    return UserError(f"{path}, row {row}: no identifier: one of {columns}")


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) in (int, float)
