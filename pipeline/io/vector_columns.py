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


def round_vectors(table: pa.Table) -> pa.Table:
    """Return a table with its float32 vectors in float16.

    ValueError if a component is too large for it, or a vector so small that it becomes zero.
    """
    x = matrix(table["vector"])
    with np.errstate(over="ignore"):
        rounded = x.astype(np.float16)
    if not np.isfinite(rounded).all():
        limit = float(np.finfo(np.float16).max)
        raise ValueError(
            f"float16 holds at most {limit:,.0f}, and a component is {np.abs(x).max():.4g}"
        )
    if (x.any(axis=1) != rounded.any(axis=1)).any():
        raise ValueError("a vector is so small that it is zero in float16")

    flat = pa.array(rounded.reshape(-1))
    kind = pa.list_(pa.field("element", flat.type, nullable=False), x.shape[1])
    place = table.column_names.index("vector")
    return table.set_column(place, "vector", pa.FixedSizeListArray.from_arrays(flat, type=kind))


def decode_vectors(table: pa.Table) -> pa.Table:
    """Return a table with column `vector` in float32, see schemas.store_as."""
    if schemas.vector_type(table.schema) == "float32":
        return table
    decoded = vectors(matrix(table["vector"]).astype(np.float32))
    return table.set_column(table.column_names.index("vector"), "vector", decoded)
