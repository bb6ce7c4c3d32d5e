"""Tables as tab separated text."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv


def write_tsv(path: Path, table: pa.Table, header: list[str] | None, delimiter: str = "\t") -> None:
    options = csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="needed")
    with path.open("wb") as f:
        if header is not None:
            f.write((delimiter.join(header) + "\n").encode())
        csv.write_csv(table, f, options)


def write_mappings(folder: Path, items: pa.Table, users: pa.Table | None, delimiter: str = "\t") -> None:
    ending = "tsv" if delimiter == "\t" else "csv"
    write_tsv(folder / f"items.{ending}", items.select(["item_id", "asin"]), ["item_id", "asin"], delimiter)
    if users is not None:
        write_tsv(folder / f"users.{ending}", users, ["user_id", "user"], delimiter)


def whole_ratings(table: pa.Table) -> pa.Table:
    """Return interactions with 1 for an unknown rating: tools for explicit feedback need a number."""
    at = table.column_names.index("rating")
    return table.set_column(at, "rating", pc.fill_null(table["rating"], 1.0))
