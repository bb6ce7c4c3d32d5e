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


class _Header(NamedTuple):
    identifier: int | None  # position of the identifier that is used; None if there is none
    name: str  # its name
    skipped: set[int]  # positions of all identifiers


def open_delimited(path: Path) -> VectorFile:
    """Open a table of numbers, with or without a header and identifiers."""
    rows = read_rows(read_lines(path), find_delimiter(path) or "\t")
    first = next(rows, None)
    if not isinstance(first, CsvRow):
        raise no_vectors(path)

    header = _read_header(first.values)
    if header.identifier is None and _are_numbers(first.values):
        rows = chain([first], rows)

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

    table = None
    if header.identifier is not None:
        table = pa.table({header.name: pa.array(ids, pa.string())})
    return replace(open_matrix(path, np.stack(vectors)), ids=table)


def _read_header(values: list[str]) -> _Header:
    names = [value.partition(":")[0] for value in values]  # RecBole: iid:token, item_emb:float_seq
    known = [i for i, name in enumerate(names) if rank_identifier(name) >= 0]
    if known:
        best = min(known, key=lambda i: rank_identifier(names[i]))
        return _Header(best, names[best], set(known))
    if names[0] == "":  # pandas leaves the name of its index empty
        return _Header(0, "id", {0})
    return _Header(None, "", set())


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
