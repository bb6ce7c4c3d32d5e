"""Read a feature set of the dataset, or a file in a format of pipeline/vectors/, in item order."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.section import nearest
from alignrec.pipeline.vectors.base import MatchedFile, match_file

MIN_COMPARED_ITEMS = 3  # of a comparison
MAX_UNKNOWN_SHARE = 1 / 3  # of rows of no item, above which a file is odd
MAX_NAME_CHARACTERS = 40  # of a set named after a file


@dataclass(frozen=True)
class ComparedSet:
    """A feature set to compare. I items, F width."""

    name: str
    source: str  # file, and how its rows were matched with items
    vectors: np.ndarray  # float32 [I, F], finite
    identified: bool = True  # whether its rows have identifiers
    folder: str = ""  # parent folder of a file that the set is named after
    has_row: np.ndarray | None = None  # bool [I], items with a row; None: all
    oddities: Sequence[str] = ()  # what is odd about a file, as sentences


def read_set(
    spec: str, layout: Layout, asins: Sequence[str], order: Path | None = None
) -> ComparedSet:
    """Read the features that `spec` names (see docs/compare.md), with zeros for items without a
    row.
    """
    name, path = split_name(spec)
    # a column of a table may follow a colon
    head, _, column = path.rpartition(":")
    tables = Path(head).is_dir() or (head.endswith(".parquet") and Path(head).exists())
    if not (head and column and tables) or Path(path).exists():
        head, column = path, ""
    where = Path(head)
    if path in layout.feature_sets() and not where.suffix:
        return replace(read_encoded(layout, path), name=name or path)
    if not where.exists():
        raise UserError(
            f"'{path}' is neither a file nor an encoded feature set of {layout.dataset}"
            f"{nearest(path, layout.feature_sets())}"
        )
    matched = match_file(where, asins, order, column=column or None)
    counted = matched.counted(asins, "are left out")
    vectors = matched.rows(0, len(asins))
    return ComparedSet(
        name or short_name(Path(column) if column else where),
        f"{where.name}, width {matched.vectors.width:,}, {matched.how}"
        f"{'; ' if counted else ''}{counted}",
        vectors,
        matched.identified,
        "" if name else where.resolve().parent.name,
        matched.place >= 0 if matched.missing else None,
        list(_find_oddities(matched, vectors[matched.place >= 0])),
    )


def _find_oddities(matched: MatchedFile, rows: np.ndarray) -> Iterator[str]:
    """Yield what is odd about a file and its matched rows [R, F]."""
    n_rows = len(rows)
    if matched.unknown > MAX_UNKNOWN_SHARE * matched.vectors.count:
        yield (
            f"{matched.unknown:,} of {matched.vectors.count:,} rows are of no item here; "
            "is it of this dataset?"
        )
    if n_rows < MIN_COMPARED_ITEMS:
        return

    n_constant = int((rows == rows[0]).all(axis=0).sum())
    if n_constant:
        yield f"{n_constant:,} of {rows.shape[1]:,} columns are the same in all rows"
    is_zero = ~rows.any(axis=1)
    if is_zero.any():
        yield f"{is_zero.sum():,} of {n_rows:,} rows are zeros, and no vectors"
    filled = rows[~is_zero]
    n_repeated = len(filled) - len({hash(row.tobytes()) for row in filled})
    if n_repeated:
        yield f"{n_repeated:,} of {n_rows:,} rows repeat the vector of another"


def read_encoded(layout: Layout, name: str) -> ComparedSet:
    vectors = io.matrix(io.read_features(layout.features(name))["vector"])
    return ComparedSet(name, f"encoded here as {name}", vectors)


def common_items(sets: Sequence[ComparedSet]) -> np.ndarray:
    """Return the items that have a row in all sets, int [C].

    UserError if fewer than MIN_COMPARED_ITEMS.
    """
    n_items = len(sets[0].vectors)
    is_common = np.ones(n_items, bool)
    for features in sets:
        if features.has_row is not None:
            is_common &= features.has_row

    if is_common.sum() < min(MIN_COMPARED_ITEMS, n_items):
        names = ", ".join(features.name for features in sets)
        raise UserError(f"{names}: {is_common.sum()} items have a row in all; give larger files")
    return np.flatnonzero(is_common)


def with_distinct_names(sets: Sequence[ComparedSet]) -> list[ComparedSet]:
    """Prefix files of equal names with their folder, then number them."""
    uses = Counter(features.name for features in sets)
    distinct: dict[str, ComparedSet] = {}
    for features in sets:
        name = features.name
        if features.folder and uses[name] > 1:
            name = short_name(Path(f"{features.folder}-{name}"))

        numbered = (f"{name}-{number}" for number in range(2, len(sets) + 1))
        free = next(free for free in (name, *numbered) if free not in distinct)
        distinct[free] = replace(features, name=free)
    return list(distinct.values())


def split_name(spec: str) -> tuple[str, str]:
    """Split `name=path`, where the name is optional and the path may contain `=`."""
    name, equals, path = spec.partition("=")
    if not equals or Path(spec).exists():
        return "", spec
    # the name is used as a file name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise UserError(
            f"'{spec}': no such file, and '{name}' is not a name (letters, digits, - and _)"
        )
    return name, path


def short_name(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-")
    return name[:MAX_NAME_CHARACTERS] or "features"
