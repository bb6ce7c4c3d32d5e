"""Reader of JSON features: objects with identifier and vector, or one object identifier -> vector, as M3L's."""

import json as syntax
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.sources.feature_files import NAMES, rank_identifier
from alignrec.pipeline.sources.lines import LONGEST_LINE, open_text, read_lines
from alignrec.pipeline.vectors.base import Vectors, check_vector, gather_rows, no_vectors

Named = tuple[str, Any, Any]  # identifier column, identifier, vector
LARGEST = 1 << 63
LONGEST = 1 << 29  # bytes of a document, which is read whole
UNNAMED = "row"  # column name for nested lists, which name no items
MAPPED = "id"  # column name for keys of an object identifier -> vector


def open_json(path: Path) -> Vectors:
    names: list[str | int] = []
    column, width = "", None
    for row, (key, name, value) in enumerate(_iterate_values(path)):
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise UserError(f"{path}, row {row}: no identifier: one of {', '.join(NAMES)}")
        width, column = len(check_vector(path, row, value, width)), column or key
        names.append(name)
    if width is None:
        raise no_vectors(path)

    def take(numbers: np.ndarray) -> np.ndarray:
        return gather_rows(
            path, ((row, value) for row, (*_, value) in enumerate(_iterate_values(path))), numbers, width
        )

    if column == UNNAMED:
        return Vectors(path, len(names), width, take)
    numbers = all(isinstance(name, int) and abs(name) < LARGEST for name in names)  # integers may be item numbers
    ids = pa.array(names, pa.int64()) if numbers else pa.array(map(str, names), pa.string())
    return Vectors(path, len(names), width, take, pa.table({column: ids}))


def _iterate_values(path: Path) -> Iterator[Named]:
    if not _is_lines(path):
        with open_text(path) as f:
            yield from _read_document(path, f.read(LONGEST + 1))
        return
    for row, line in enumerate(read_lines(path)):
        if line.strip():
            yield _split_object(path, row, _parse_line(path, row, line))


def _is_lines(path: Path) -> bool:
    try:
        # JSON lines if the first line is a complete object with an identifier
        value = orjson.loads(next((line for line in read_lines(path) if line.strip()), b""))
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and any(rank_identifier(key) >= 0 for key in value)


def _read_document(path: Path, data: bytes) -> Iterator[Named]:
    if len(data) > LONGEST:
        raise UserError(f"{path}: longer than {LONGEST:,} bytes; write JSON lines, or Parquet")
    is_array = data.lstrip().startswith(b"[")
    try:
        value = syntax.loads(data, object_pairs_hook=None if is_array else list)  # pairs keep duplicate identifiers
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON, or cut off") from None
    yield from (
        (_split_object(path, row, one) for row, one in enumerate(value))
        if is_array
        else ((MAPPED, *pair) for pair in value)
    )


def _parse_line(path: Path, row: int, line: bytes) -> Any:
    if len(line) > LONGEST_LINE:
        raise UserError(f"{path}, line {row + 1}: longer than {LONGEST_LINE:,} bytes")
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        pass
    try:
        return syntax.loads(line)  # accepts NaN, which is refused later with its row number
    except (ValueError, RecursionError):
        raise UserError(f"{path}, line {row + 1}: not JSON") from None


def _split_object(path: Path, row: int, value: Any) -> Named:
    if isinstance(value, list):
        return UNNAMED, row, value
    if not isinstance(value, dict):
        raise UserError(f"{path}, row {row}: not an object with an identifier and a vector")
    known = sorted((key for key in value if rank_identifier(key) >= 0), key=rank_identifier)
    lists = [k for k in value if isinstance(value[k], list) and value[k] and type(value[k][0]) in (int, float)]
    if len(lists) != 1:
        found = ", ".join(lists) or "none"
        raise UserError(f"{path}, row {row}: {len(lists)} lists of numbers ({found}), expected one")
    return known[0] if known else "", value[known[0]] if known else None, value[lists[0]]
