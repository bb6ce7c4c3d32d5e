"""Columns of vectors: to and from arrays, and in the smaller types of `schemas.VECTOR_TYPES`."""

from typing import Any

import numpy as np
import pyarrow as pa

from alignrec import schemas


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    width = column.type.list_size
    flat = [np.asarray(c.flatten().to_numpy(zero_copy_only=False)) for c in column.chunks]
    return np.concatenate(flat).reshape(-1, width) if flat else np.empty((0, width), np.float32)


def vectors(array: np.ndarray) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=schemas.vector(array.shape[1]))


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Replace the values of a column, whose type they have."""
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(place), values)


def stored_columns(stored: pa.Schema, columns: list[str] | None) -> list[str] | None:
    """Return the columns to read: those asked for, and what decodes their vectors."""
    if columns is None or "vector" not in columns or schemas.vector_type(stored) != "int8":
        return columns
    return [*columns, schemas.SCALE.name]


def round_vectors(table: pa.Table, name: str) -> pa.Table:
    """Return a table with its float32 vectors in a type of schemas.VECTOR_TYPES.

    ValueError if a component is too large for it, or a vector so small that it becomes zero.
    """
    if name == "float32":
        return table
    x = matrix(table["vector"])
    scale: np.ndarray | None = None
    if name == "float16":
        with np.errstate(over="ignore"):
            rounded = x.astype(np.float16)
    else:
        scale = (np.abs(x).max(axis=1, initial=0) / 127).astype(np.float32)
        divisor = np.where(scale > 0, scale, 1)[:, None]
        rounded = np.clip(np.rint(x / divisor), -127, 127).astype(np.int8)
    _refuse_unfit(x, rounded, name)

    flat = pa.array(rounded.reshape(-1))
    kind = pa.list_(pa.field("element", flat.type, nullable=False), x.shape[1])
    place = table.column_names.index("vector")
    table = table.set_column(place, "vector", pa.FixedSizeListArray.from_arrays(flat, type=kind))
    return table if scale is None else table.append_column(schemas.SCALE, pa.array(scale))


def _refuse_unfit(x: np.ndarray, rounded: np.ndarray, name: str) -> None:
    if not np.isfinite(rounded).all():
        limit = float(np.finfo(np.float16).max)
        raise ValueError(
            f"{name} holds at most {limit:,.0f}, and a component is {np.abs(x).max():.4g}"
        )
    if (x.any(axis=1) != rounded.any(axis=1)).any():
        raise ValueError(f"a vector is so small that it is zero in {name}")


def decode_vectors(table: pa.Table) -> pa.Table:
    """Return a table with column `vector` in float32 and without `scale`, see schemas.store_as."""
    name = schemas.vector_type(table.schema)
    if name == "float32":
        return table
    decoded = matrix(table["vector"]).astype(np.float32)
    if name == "int8":
        decoded *= table[schemas.SCALE.name].to_numpy()[:, None]
        table = table.drop_columns([schemas.SCALE.name])
    return table.set_column(table.column_names.index("vector"), "vector", vectors(decoded))
