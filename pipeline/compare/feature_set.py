"""Reads a feature set from the dataset or a file, in the dataset's item order; the first mismatch is an error."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import io
from pipeline.errors import UserError, one_line
from pipeline.items import identifiers
from pipeline.layout import Layout
from pipeline.probe import categories
from pipeline.sources import image_features

TORCH = (".pt", ".pth")


@dataclass(frozen=True)
class FeatureSet:
    """A feature set to compare."""

    name: str
    source: str
    """its file, and how its rows were matched with items"""
    vectors: np.ndarray
    """float32 [I, F], finite, row i is item i"""
    read_categories: bool | None = None
    """whether its encoder read the categories, as part of the text; None where that is not known"""
    identified: bool = True
    """whether its file says itself which item a row is"""


def read(spec: str, layout: Layout, asins: Sequence[str], order: Path | None = None) -> FeatureSet:
    """Return the features that `spec` names.

    Args:
        spec: an encoded feature set of the dataset, or a path of a .npy, .pt, .parquet or a folder of Parquet files, of
            several columns of vectors `path:column`; `name=path` gives it a name of its own.
        asins: identifier of item 0 .. I-1.
        order: mapping file that says which item each row is, for files that do not; see identifiers.order.

    Raises:
        UserError: missing, unreadable, not one row an item, other items, no known order of a table's rows, or a value
            that is not finite.
    """
    name, path = named(spec)
    where, column = _column(path)
    if path in layout.feature_sets() and not where.suffix:
        table = io.read_features(layout.features(path))
        read = categories.read_categories(layout, [path], _in_text(layout))[path]
        return FeatureSet(name or path, f"encoded here as {path}", io.matrix(table["vector"]), read)
    if not where.exists():
        available = ", ".join(layout.feature_sets()) or "none"
        raise UserError(
            f"'{path}' is neither a file nor an encoded feature set of {layout.dataset} (there: {available})"
        )
    try:
        vectors, how, read, identified = _loaded(where, asins, order, column)
    except (ValueError, EOFError, OSError, pa.ArrowException) as e:
        raise UserError(f"{where}: not readable as features: {one_line(e)}") from None
    if read and not _in_text(layout):
        read = None  # it read texts, but other ones than the dataset's
    checked = _checked(where, vectors, len(asins))
    return FeatureSet(
        name or short(Path(column) if column else where), f"{where.name}, {how}", checked, read, identified
    )


def encoded(layout: Layout) -> Iterator[FeatureSet]:
    """Yield the feature sets of a dataset, read one by one."""
    for name in layout.feature_sets():
        yield FeatureSet(name, f"encoded here as {name}", io.matrix(io.read_features(layout.features(name))["vector"]))


def distinct(sets: Sequence[FeatureSet]) -> list[FeatureSet]:
    """Return the sets with names that differ: a second `a` becomes `a-2`."""
    names = distinct_names([g.name for g in sets])
    return [replace(g, name=name) for name, g in zip(names, sets, strict=True)]


def distinct_names(wanted: Sequence[str]) -> list[str]:
    """Return names that differ: a second `a` becomes `a-2`."""
    names: list[str] = []
    for first in wanted:
        name, count = first, 1
        while name in names:
            count += 1
            name = f"{first}-{count}"
        names.append(name)
    return names


def _in_text(layout: Layout) -> bool:
    """Return whether the texts of the dataset hold the categories."""
    return layout.items.exists() and "categories" in schemas.text_fields(io.read_table(layout.items, schemas.ITEMS, []))


def named(spec: str) -> tuple[str, str]:
    """Return the name that `name=path` gives, or nothing, and the path; a path may contain =."""
    name, equals, path = spec.partition("=")
    if not equals or Path(spec).exists():
        return "", spec
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):  # it becomes a file name
        raise UserError(f"'{spec}': there is no such file, and '{name}' is no name (letters, digits, - and _)")
    return name, path


def _column(path: str) -> tuple[Path, str | None]:
    """Return a file, and the column that `file:column` names; a path may contain a colon."""
    where, colon, column = path.rpartition(":")
    split = bool(colon and column) and not Path(path).exists() and Path(where).exists()
    return (Path(where), column) if split else (Path(path), None)


def _loaded(
    path: Path, asins: Sequence[str], order: Path | None, named_column: str | None = None
) -> tuple[Any, str, bool | None, bool]:
    """Return a file's vectors in item order, how they were matched, if a text went into any, if it names its rows."""
    if path.suffix == ".npy":
        return *_ordered(path, image_features.opened(path), asins, order), None, False
    if path.suffix in TORCH:
        return *_ordered(path, _torch(path), asins, order), None, False
    if path.is_dir() or path.suffix == ".parquet":
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path}: no *.parquet in this folder; for a release, name features/<encoder> in it")
        table = pa.concat_tables([pq.read_table(f, partitioning=None) for f in files])
        vectors, read_text = _vectors(path, table, named_column), categories.read_by(table, in_text=True)
        if order is not None and not identifiers.present(table):
            return *_ordered(path, vectors, asins, order), read_text, False
        column, rows = identifiers.matched(path, table, asins)
        return vectors[rows], f"rows matched by {column}", read_text, True
    raise UserError(f"{path}: expected .npy, .pt, .parquet or a folder of Parquet files")


def _ordered(path: Path, vectors: Any, asins: Sequence[str], order: Path | None) -> tuple[Any, str]:
    """Return vectors without identifiers in item order; without a mapping file they are assumed to be in it."""
    if order is None:
        return vectors, "rows assumed to be in order of item_id: it holds no identifiers; --order gives another order"
    names = identifiers.order(order, asins)
    if np.ndim(vectors) and len(vectors) != len(names):
        raise UserError(f"{path}: {len(vectors)} rows, {order} names {len(names)}")
    _, rows = identifiers.matched(order, pa.table({"asin": pa.array(names, pa.string())}), asins)
    return vectors[rows], f"rows in the order of {order.name}"


def _torch(path: Path) -> np.ndarray:
    import torch  # slow to import, and only this kind of file needs it

    from pipeline.ops.tensors import is_plain

    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        # torch raises many kinds here, pickle's and its own: the file is no tensor
        raise UserError(f"{path}: not a plain tensor ({type(e).__name__}); save it with torch.save(tensor)") from None
    if isinstance(tensor, dict) and len(tensor) == 1:
        tensor = next(iter(tensor.values()))
    if not isinstance(tensor, torch.Tensor):
        raise UserError(f"{path}: holds {type(tensor).__name__}, expected one tensor [items, width]")
    if not is_plain(tensor):
        raise UserError(
            f"{path}: a tensor that is sparse, nested, quantised, complex or without data; expected numbers"
        )
    return tensor.detach().float().numpy()


def _vectors(path: Path, table: pa.Table, wanted: str | None) -> np.ndarray:
    """Return the vectors of a table, [N, F], from the column that is wanted, by default its only one of vectors."""
    lists = [f.name for f in table.schema if _is_vector(f.type)]
    if wanted is not None and wanted not in lists:
        raise UserError(f"{path}: no column '{wanted}' of vectors; it has {', '.join(lists) or 'none'}")
    if wanted is None and len(lists) != 1:
        hint = f"; name one, as in {path.name}:{lists[0]}" if lists else ""
        raise UserError(f"{path}: {len(lists)} columns hold vectors ({', '.join(lists) or 'none'}), expected one{hint}")
    lists = [wanted] if wanted is not None else lists
    column = table[lists[0]]
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) != 1 or widths[0] is None:
        raise UserError(f"{path}: column '{lists[0]}' holds vectors of several widths or nulls")
    return pc.list_flatten(column).to_numpy().reshape(-1, widths[0])


def _checked(path: Path, vectors: Any, items: int) -> np.ndarray:
    shape, kind = np.shape(vectors), getattr(vectors, "dtype", np.dtype(object))
    if len(shape) != 2 or not shape[1] or kind.kind not in "fiu":
        raise UserError(f"{path}: is {kind} {shape}, expected numbers [items, width]")
    if len(vectors) != items:
        raise UserError(f"{path}: {len(vectors)} rows, the dataset has {items} items")
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(vectors, np.float32)  # before the check: a double may overflow
    wrong = np.flatnonzero(~np.isfinite(single).all(axis=1))
    if wrong.size:
        raise UserError(f"{path}, row {wrong[0]}: not finite in single precision")
    return single


def _is_vector(kind: pa.DataType) -> bool:
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return nested and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def short(path: Path) -> str:
    """Return a name for the terminal and for files, of letters, digits, - and _."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-")[:40] or "features"
