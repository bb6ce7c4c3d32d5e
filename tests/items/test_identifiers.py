"""Which row is of which item: what is wrong is found in a few passes over the rows."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.items import identifiers


class Counted(list[Any]):
    """Counts how often somebody goes through it."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return super().__iter__()


@pytest.mark.parametrize(
    ("last", "fault"),
    [(None, "no row for item 999 (item_id 999); 999 rows, 1000 items"), (0, "item_id 0 occurs twice"), (-1, "row 999")],
)
def test_the_first_mismatch_takes_as_many_passes_over_a_thousand_rows_as_over_ten(last: int | None, fault: str) -> None:
    passes = []
    for n in (10, 1000):
        values = Counted([*range(n - 1), *([] if last is None else [last])])
        column: Any = SimpleNamespace(type=pa.int64(), to_pylist=lambda values=values: values)
        said = identifiers.mismatch("item_id", column, [f"A{i}" for i in range(n)])
        passes.append(values.passes)
    assert fault in said
    assert passes[0] == passes[1]
