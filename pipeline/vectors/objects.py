"""Reader of JSON with identifiers and vectors, including an object of both, as M3L's."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import MAX_LINE_BYTES, open_text, read_lines
from alignrec.pipeline.vectors.base import VectorFile, check_vector, gather_rows, no_vectors
from alignrec.pipeline.vectors.identifiers import IDENTIFIER_COLUMNS, rank_identifier

ID_LIMIT = 1 << 63  # integers of this size and above are texts, as int64 cannot hold them
MAX_DOCUMENT_BYTES = 1 << 29  # of a JSON document, which is read as a whole
ROW_COLUMN = "row"  # column name for nested lists, which have no identifiers
KEY_COLUMN = "id"  # column name for keys of an object identifier -> vector


class NamedVector(NamedTuple):
    """A vector with its identifier, not yet checked."""

    column: str  # identifier column; empty if there is none
    identifier: Any
    vector: Any


def open_json(path: Path) -> VectorFile:
    names: list[str | int] = []
    column = ""
    width: int | None = None
    for row, item in enumerate(_iterate_vectors(path)):
        name = item.identifier
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            columns = ", ".join(IDENTIFIER_COLUMNS)
            raise UserError(f"{path}, row {row}: no identifier: one of {columns}")
        width = len(check_vector(path, row, item.vector, width))
        column = column or item.column
        names.append(name)
    if width is None:
        raise no_vectors(path)

    def take(numbers: np.ndarray) -> np.ndarray:
        rows = ((row, item.vector) for row, item in enumerate(_iterate_vectors(path)))
        return gather_rows(path, rows, numbers, width)

    ids = None if column == ROW_COLUMN else pa.table({column: _identifier_array(names)})
    return VectorFile(path, len(names), width, take, ids)


def _identifier_array(names: list[str | int]) -> pa.Array:
    # integers may be item numbers
    if all(isinstance(name, int) and abs(name) < ID_LIMIT for name in names):
        return pa.array(names, pa.int64())
    return pa.array(map(str, names), pa.string())


def _iterate_vectors(path: Path) -> Iterator[NamedVector]:
    if _has_json_lines(path):
        for row, line in enumerate(read_lines(path)):
            if line.strip():
                yield _split_object(path, row, _parse_line(path, row, line))
    else:
        yield from _iterate_document(path)


def _has_json_lines(path: Path) -> bool:
    """Return whether the first line is a complete object with an identifier."""
    first_line = next((line for line in read_lines(path) if line.strip()), b"")
    with suppress(orjson.JSONDecodeError):
        value = orjson.loads(first_line)
        return isinstance(value, dict) and any(rank_identifier(key) >= 0 for key in value)
    return False


def _iterate_document(path: Path) -> Iterator[NamedVector]:
    with open_text(path) as f:
        data = f.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UserError(
            f"{path}: longer than {MAX_DOCUMENT_BYTES:,} bytes; write JSON lines, or Parquet"
        )

    is_array = data.lstrip().startswith(b"[")
    try:
        # pairs keep duplicate identifiers
        document = json.loads(data, object_pairs_hook=None if is_array else list)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON, or cut off") from None
    if not isinstance(document, list):
        return

    for row, value in enumerate(document):
        yield _split_object(path, row, value) if is_array else NamedVector(KEY_COLUMN, *value)


def _parse_line(path: Path, row: int, line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise UserError(f"{path}, line {row + 1}: longer than {MAX_LINE_BYTES:,} bytes")
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(line)
    try:
        return json.loads(line)  # accepts NaN, which is rejected later with its row number
    except (ValueError, RecursionError):
        raise UserError(f"{path}, line {row + 1}: not JSON") from None


def _split_object(path: Path, row: int, value: Any) -> NamedVector:
    if isinstance(value, list):
        return NamedVector(ROW_COLUMN, row, value)
    if not isinstance(value, dict):
        raise UserError(f"{path}, row {row}: not an object with an identifier and a vector")

    lists = [key for key in value if _is_vector(value[key])]
    if len(lists) != 1:
        names = ", ".join(lists) or "none"
        raise UserError(f"{path}, row {row}: {len(lists)} lists of numbers ({names}), expected one")

    vector = value[lists[0]]
    identifiers = [key for key in value if rank_identifier(key) >= 0]
    if not identifiers:
        return NamedVector("", None, vector)
    column = min(identifiers, key=rank_identifier)
    return NamedVector(column, value[column], vector)


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and type(value[0]) in (int, float)
