"""Mapping files, such as MMRec's i_id_mapping.csv: an identifier and a number in each row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from pipeline.errors import UserError


def numbered(path: Path, number: str, names: Sequence[str], count: int) -> list[str]:
    """Return the identifier of numbers 0 .. count-1 from a mapping file, CSV or tab separated text with a header.

    `number` is the column of numbers; that of identifiers has one of `names`, or is the other one of two. UserError: no
    such columns, a missing or repeated number or identifier, or not `count` numbers.
    """
    table = text_table(path)
    columns = {column: table.column(i) for i, column in reversed([*enumerate(table.column_names)])}
    others = [column for column in columns if column != number]
    name = next((n for n in names if n in others), others[0] if len(others) == 1 else None)
    if number not in columns or name is None:
        raise UserError(f"{path}: expected the columns {names[0]} and {number}; it has {', '.join(table.column_names)}")
    found = [value.strip() for value in columns[name].to_pylist()]
    for column, values in ((number, columns[number].to_pylist()), (name, found)):
        if len(set(values)) < len(values):
            again = repeated(values)
            rows = [i + 2 for i, value in enumerate(values) if value == again][:2]
            raise UserError(f"{path}, lines {rows[0]} and {rows[1]}: {column} {again!r} occurs twice; keep one")
    if "" in found:
        raise UserError(f"{path}, line {found.index('') + 2}: no {name}")
    if (rows_of := permutation(columns[number])) is None:
        raise UserError(f"{path}: {number} holds other values than 0 .. {len(found) - 1:,}, each once")
    if len(found) != count:
        raise UserError(
            f"{path}: names {len(found):,} {number}s, the interactions have {count:,}; give the files of one split"
        )
    return [found[i] for i in np.argsort(rows_of)]


def repeated(values: Sequence[object]) -> object:
    seen = set[object]()
    return next(v for v in values if v in seen or seen.add(v))  # type: ignore[func-returns-value]


def permutation(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return the numbers of a column of text, int64 [N], if they are 0 .. N-1 in some order; else None."""
    try:
        numbers = column.cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        return None
    whole = numbers.dtype.kind == "i" and np.array_equal(np.sort(numbers), np.arange(len(numbers)))
    return numbers if whole and len(numbers) else None


def text_table(path: Path) -> pa.Table:
    try:
        with path.open(encoding="utf-8-sig") as f:
            header = f.readline(65536).rstrip("\r\n")
        delimiter = "\t" if "\t" in header else ","
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        return csv.read_csv(
            path,
            csv.ReadOptions(column_names=names, skip_rows=1),
            csv.ParseOptions(delimiter=delimiter),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except OSError as e:
        raise UserError(f"{path}: {e.strerror or e}; --order names a mapping file: identifier, row") from None
    except (pa.ArrowException, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not readable as a mapping file: {' '.join(str(e).split())}") from None
