"""Reader of CSV or TSV of numbers, and of RecBole's item embeddings."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from alignrec.pipeline.io.csv_rows import CsvRow, find_delimiter, read_rows
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.io.text import RejectedRow, read_lines
from alignrec.pipeline.vectors.arrays import open_matrix
from alignrec.pipeline.vectors.base import VectorFile, check_vector, no_vectors
from alignrec.pipeline.vectors.identifiers import rank_identifier
from alignrec.pipeline.vectors.series import is_index, keep_series, numbers_rows

# without a header, fewer rows may begin with 0 and 1 by chance
MIN_NUMBERED_ROWS = 3


class _Header(NamedTuple):
    identifier: int | None  # position of the identifier that is used; None if there is none
    name: str  # its name
    skipped: set[int]  # positions of all identifiers, and of an index
    indexes: list[str]  # names of columns that are an index
    numbers: list[str]  # names of the others; empty without a header


def open_delimited(path: Path) -> VectorFile:
    """Open a table of numbers, with or without a header and identifiers."""
    rows = read_rows(read_lines(path), find_delimiter(path) or "\t")
    first = next(rows, None)
    if not isinstance(first, CsvRow):
        raise no_vectors(path)

    header = _read_header(first.values)
    if header.identifier is None and _are_numbers(first.values):
        rows = chain([first], rows)
        header = _Header(None, "", set(), [], [])

    ids = []
    vectors: list[np.ndarray] = []
    for row in rows:
        if isinstance(row, RejectedRow):
            raise UserError(f"{path}, line {row.line}: {row.reason}; repair the file")
        if header.identifier is not None:
            ids.append(row.values[header.identifier])
        numbers = _read_numbers(path, row, header)
        width = len(vectors[0]) if vectors else None
        vectors.append(check_vector(path, row.line, numbers, width))
    if not vectors:
        raise no_vectors(path)

    matrix, left_out = _leave_out_row_numbers(path, np.stack(vectors), header)
    table = None
    if header.identifier is not None:
        table = pa.table({header.name: pa.array(ids, pa.string())})
    return replace(open_matrix(path, matrix), ids=table, left_out=left_out)


def _read_header(values: list[str]) -> _Header:
    names = [value.partition(":")[0] for value in values]  # RecBole: iid:token, item_emb:float_seq
    known = [i for i, name in enumerate(names) if rank_identifier(name) >= 0]
    identifier: int | None = None
    name = ""
    if known:
        identifier = min(known, key=lambda i: rank_identifier(names[i]))
        name = names[identifier]
    elif names[0] == "":  # pandas leaves the name of its index empty
        identifier, name, known = 0, "id", [0]

    indexes = [i for i in range(len(names)) if i not in known and is_index(names[i])]
    skipped = {*known, *indexes}
    numbers = [names[i] for i in range(len(names)) if i not in skipped]
    return _Header(identifier, name, skipped, [values[i] for i in indexes], numbers)


def _leave_out_row_numbers(
    path: Path, matrix: np.ndarray, header: _Header
) -> tuple[np.ndarray, list[str]]:
    """Return the columns of vectors, and the names of the others."""
    rows, width = matrix.shape
    if not header.skipped and not header.numbers:
        is_numbered = rows >= MIN_NUMBERED_ROWS and width > 1 and numbers_rows(matrix[:, 0])
        return (matrix[:, 1:], ["first"]) if is_numbered else (matrix, [])
    if len(header.numbers) != width:  # one column holds all numbers
        return matrix, header.indexes

    matrix, numbering = keep_series(path, header.numbers, matrix)
    return matrix, [*header.indexes, *numbering]


def _read_numbers(path: Path, row: CsvRow, header: _Header) -> np.ndarray:
    values = [value for i, value in enumerate(row.values) if i not in header.skipped]
    if len(values) == 1:
        values = values[0].split()
    if not _are_numbers(values):
        raise UserError(
            f"{path}, line {row.line}: not all are numbers; "
            "keep one column of identifiers and numbers"
        )
    return np.array(values, np.float32)


def _are_numbers(values: list[str]) -> bool:
    try:
        return bool(len(np.array(values, np.float32)))
    except ValueError:
        return False
