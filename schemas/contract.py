"""Schema fields, whose metadata contains documentation and constraints, and validation of tables."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ContractError(ValueError):
    """A table violates its schema; the message names file, column and row."""


def field(
    name: str, dtype: pa.DataType, doc: str, *, nullable: bool = False, low: float | None = None,
    high: float | None = None, one_of: tuple[str, ...] | None = None,
) -> pa.Field:  # fmt: skip
    limits = {"low": low, "high": high, "one_of": list(one_of) if one_of else None}
    metadata = {"doc": doc} | {k: json.dumps(v) for k, v in limits.items() if v is not None}
    return pa.field(name, dtype, nullable=nullable, metadata=metadata)


def schema(*fields: pa.Field) -> pa.Schema:
    return pa.schema(fields)


def vector(width: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), width)


def check(table: pa.Table, schema: pa.Schema, where: str = "table", first: int = 0) -> pa.Table:
    """Return `table` with the schema's columns, order and metadata; raise ContractError for its first violation."""
    # rows are numbered from `first`, as the table may be part of a larger one
    missing = [n for n in schema.names if n not in table.column_names]
    extra = [n for n in table.column_names if n not in schema.names]
    if missing or extra:
        wrong = [f"has no column '{n}'" for n in missing] + [
            f"has an unexpected column '{n}'" for n in extra
        ]
        raise ContractError(f"{where} {' and '.join(wrong)}; expected {', '.join(schema.names)}")
    if len(table.column_names) > len(schema.names):
        twice = next(n for n in schema.names if table.column_names.count(n) > 1)
        raise ContractError(f"{where} has column '{twice}' twice")
    for f in schema:
        column = table.column(f.name)
        if column.type != f.type:
            raise ContractError(f"{where}: column '{f.name}' is {column.type}, expected {f.type}")
        if bad := _first_bad_row(column, f):
            raise ContractError(f"{where}: column '{f.name}', row {first + bad[0]}: {bad[1]}")
    kept = dict(schema.metadata or {}) | dict(table.schema.metadata or {})
    return table.select(schema.names).cast(schema).replace_schema_metadata(kept or None)


def _first_bad_row(column: pa.ChunkedArray, f: pa.Field) -> tuple[int, str] | None:
    if not f.nullable and (row := _first_true(pc.is_null(column))) is not None:
        return row, "is null"
    meta = {k.decode(): v.decode() for k, v in (f.metadata or {}).items()}
    if pa.types.is_fixed_size_list(f.type):
        column = column.drop_null() if f.nullable else column
        return (
            _first_not_finite(column, f.type.list_size)
            if f.type.list_size
            else (0, "has no elements")
        )
    if (
        pa.types.is_floating(f.type)
        and (row := _first_true(pc.invert(pc.is_finite(column)))) is not None
    ):
        return row, f"{column[row]} is not finite"
    for name, outside in (("low", pc.less), ("high", pc.greater)):
        if (
            name in meta
            and (row := _first_true(outside(column, json.loads(meta[name])))) is not None
        ):
            return row, f"{column[row]} is {'below' if name == 'low' else 'above'} {meta[name]}"
    if "one_of" in meta:
        allowed = json.loads(meta["one_of"])
        unknown = pc.invert(pc.is_in(column, value_set=pa.array(allowed, f.type)))
        if (row := _first_true(pc.and_(pc.is_valid(column), unknown))) is not None:
            return row, f"{column[row].as_py()!r} is none of {', '.join(allowed)}"
    return None


def _first_true(mask: Any) -> int | None:
    row = pc.index(mask, True).as_py()
    return None if row < 0 else row


def _first_not_finite(column: pa.ChunkedArray, width: int) -> tuple[int, str] | None:
    start = 0
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        bad = ~np.isfinite(values).all(axis=1)
        if len(values) != len(chunk):
            return start, "is null"
        if bad.any():
            row = int(bad.argmax())
            return start + row, f"element {int((~np.isfinite(values[row])).argmax())} is not finite"
        start += len(chunk)
    return None


def provenance_of(table: pa.Table) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"alignrec", b"{}"))
    return record


ITEM_ID = field("item_id", pa.int32(), "dense item number, 0 .. I-1", low=0)
ASIN = field("asin", pa.string(), "the item's identifier at its source")
USER_ID = field("user_id", pa.int32(), "dense user number, 0 .. U-1", low=0)
USER = field("user", pa.string(), "the user's identifier at its source")
