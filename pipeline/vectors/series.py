"""Tell the columns of a vector from an index and from other numbers of a table. N rows."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignrec.pipeline.io.errors import UserError, one_line
from alignrec.pipeline.vectors.identifiers import plain_name

INDEX = re.compile(r"(unnamed\d*|index(level\d+)?)?")  # plain names of an index of pandas and R
LAST_NUMBER = re.compile(r"\d+(?=\D*$)")
MAX_SHOWN_COLUMNS = 4  # in a message


def is_index(name: str) -> bool:
    return INDEX.fullmatch(plain_name(name)) is not None


def keep_series(
    path: Path, names: Sequence[str], matrix: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Return the columns of the one numbered series of names (v0, v1), and the names of others that
    number the rows.

    Raises UserError for any other column.
    """
    series = defaultdict(list)
    for position, name in enumerate(names):
        series[LAST_NUMBER.sub("#", name)].append(position)
    kept = max(series.values(), key=len)

    others = [position for position in range(len(names)) if position not in kept]
    odd = [position for position in others if not numbers_rows(matrix[:, position])]
    if odd:
        first, last = names[kept[0]], names[kept[-1]]
        expected = f"those of the vector, {first} .. {last}"
        if len(kept) == 1:
            odd, expected = [*kept, *others], "a numbered series, such as v0, v1"
        listed = ", ".join(repr(names[position]) for position in odd[:MAX_SHOWN_COLUMNS])
        more = f" and {len(odd) - MAX_SHOWN_COLUMNS:,} more" if odd[MAX_SHOWN_COLUMNS:] else ""
        raise UserError(
            f"{path}: columns {one_line(listed)}{more} are not {expected}; "
            "leave out what is no part of a vector"
        )
    return matrix[:, kept], [names[position] for position in others]


def numbers_rows(column: np.ndarray) -> bool:
    """Return whether values are 0 .. N-1 in any order."""
    return np.array_equal(np.sort(column), np.arange(len(column)))
