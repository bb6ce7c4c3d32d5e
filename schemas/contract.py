"""Schema fields, with documentation and constraints as metadata, and validation of tables."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ContractError(ValueError):
    """A table violates its schema; the message names file, column and row."""


def field(
    name: str,
    dtype: pa.DataType,
    doc: str,
    *,
    nullable: bool = False,
    low: float | None = None,
    high: float | None = None,
    one_of: tuple[str, ...] | None = None,
) -> pa.Field:
    limits = {"low": low, "high": high, "one_of": list(one_of) if one_of else None}
    metadata = {"doc": doc}
    for key, limit in limits.items():
        if limit is not None:
            metadata[key] = json.dumps(limit)
    return pa.field(name, dtype, nullable=nullable, metadata=metadata)


def schema(*fields: pa.Field) -> pa.Schema:
    return pa.schema(fields)


def vector(width: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), width)


def check(table: pa.Table, schema: pa.Schema, where: str = "table", first: int = 0) -> pa.Table:
    """Return `table` with the schema's columns, order and metadata.

    Raise ContractError for its first violation. Rows are numbered from `first`, as the table may be
    part of a larger one.
    """
    _check_names(table, schema, where)
    for field in schema:
        column = table.column(field.name)
        if column.type != field.type:
            raise ContractError(
                f"{where}: column '{field.name}' is {column.type}, expected {field.type}"
            )
        if violation := _first_violation(column, field):
            row, fault = violation
            raise ContractError(f"{where}: column '{field.name}', row {first + row}: {fault}")

    metadata = dict(schema.metadata or {}) | dict(table.schema.metadata or {})
    return table.select(schema.names).cast(schema).replace_schema_metadata(metadata or None)


def _check_names(table: pa.Table, schema: pa.Schema, where: str) -> None:
    names = table.column_names
    faults = [f"has no column '{name}'" for name in schema.names if name not in names]
    faults += [f"has an unexpected column '{name}'" for name in names if name not in schema.names]
    if faults:
        expected = ", ".join(schema.names)
        raise ContractError(f"{where} {' and '.join(faults)}; expected {expected}")
    for name in schema.names:
        if names.count(name) > 1:
            raise ContractError(f"{where} has column '{name}' twice")


def _first_violation(column: pa.ChunkedArray, field: pa.Field) -> tuple[int, str] | None:
    """Return the first row that violates a field's constraints, and how."""
    if not field.nullable:
        row = _first_true(pc.is_null(column))
        if row is not None:
            return row, "is null"

    if pa.types.is_fixed_size_list(field.type):
        if not field.type.list_size:
            return 0, "has no elements"
        lists = column.drop_null() if field.nullable else column
        return _first_not_finite(lists, field.type.list_size)

    if pa.types.is_floating(field.type):
        row = _first_true(pc.invert(pc.is_finite(column)))
        if row is not None:
            return row, f"{column[row]} is not finite"
    return _first_outside(column, field)


def _first_outside(column: pa.ChunkedArray, field: pa.Field) -> tuple[int, str] | None:
    """Return the first row outside `low`, `high` or `one_of` of a field, and how."""
    metadata = field.metadata or {}
    limits = {name.decode(): value.decode() for name, value in metadata.items()}
    for name, is_outside, side in (("low", pc.less, "below"), ("high", pc.greater, "above")):
        if name in limits:
            row = _first_true(is_outside(column, json.loads(limits[name])))
            if row is not None:
                return row, f"{column[row]} is {side} {limits[name]}"

    if "one_of" in limits:
        allowed = json.loads(limits["one_of"])
        is_allowed = pc.is_in(column, value_set=pa.array(allowed, field.type))
        row = _first_true(pc.and_(pc.is_valid(column), pc.invert(is_allowed)))
        if row is not None:
            return row, f"{column[row].as_py()!r} is none of {', '.join(allowed)}"
    return None


def _first_true(mask: Any) -> int | None:
    row = pc.index(mask, True).as_py()
    return None if row < 0 else row


def _first_not_finite(column: pa.ChunkedArray, width: int) -> tuple[int, str] | None:
    start = 0
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        if len(values) != len(chunk):
            return start, "is null"

        is_finite = np.isfinite(values)
        is_bad_row = ~is_finite.all(axis=1)
        if is_bad_row.any():
            row = int(is_bad_row.argmax())
            element = int(is_finite[row].argmin())
            return start + row, f"element {element} is not finite"
        start += len(chunk)
    return None


def provenance_of(table: pa.Table) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"alignrec", b"{}"))
    return record


ITEM_ID = field("item_id", pa.int32(), "dense item number, 0 .. I-1", low=0)
ASIN = field("asin", pa.string(), "the item's identifier at its source")
USER_ID = field("user_id", pa.int32(), "dense user number, 0 .. U-1", low=0)
USER = field("user", pa.string(), "the user's identifier at its source")
