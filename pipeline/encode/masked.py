"""Another feature set without its images, or without its texts: what its encoder gives for items that lack them.

Where numbers of the image alone stand beside numbers of the text alone, those of the masked modality become zero and
nothing is encoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import io
from pipeline.config.base import Name, Section
from pipeline.encode.base import Context, Encoder, Spec
from pipeline.encode.contexts import reads
from pipeline.encode.origin import Modality
from pipeline.encode.registry import CONCAT, kind, settings, spec
from pipeline.errors import UserError
from pipeline.ops.rows import unit_rows

Blank = Callable[[np.ndarray], np.ndarray]
"""float32 [n, F] -> the same without a modality"""


class MaskedParams(Section):
    """What kind `masked` reads."""

    of: Name
    """a feature set that `encode.encoders` names"""
    modality: Modality
    """what is masked of every item"""


@runtime_checkable
class Halves(Protocol):
    """An encoder whose vectors may have numbers of the image alone beside numbers of the text alone."""

    @property
    def halves(self) -> dict[str, int]:
        """Modality -> how many, in the order of the columns; empty where they do not stand apart."""
        ...


def make(context: Context, params: MaskedParams) -> Encoder:
    """Refuse: rows are made of the other set's rows, or by its encoder, see `feature_sets.rows_of`."""
    raise UserError(f"'encoders.{context.name}': a masked set has no network of its own")


MASKED = Spec(make, MaskedParams, portable=False)


def check(context: Context, params: MaskedParams) -> None:
    """Refuse to mask what a feature set does not read, or all that it reads.

    Raises:
        UserError: one line, which names both.
    """
    seen = reads(context.parts[0]) if context.parts else ()
    if set(seen) != {"image", "text"}:
        alone = f"reads {seen[0]}s alone" if seen else "is imported"
        raise UserError(f"'encoders.{context.name}': {params.of} {alone}, nothing of it can be masked; leave it out")


def blank(context: Context, modality: str) -> Blank | None:
    """Return what takes a modality out of a feature set's vectors; None if its numbers do not stand apart.

    Args:
        context: what the set is made from.
        modality: image or text.
    """
    if modality not in reads(context):
        return lambda vectors: vectors
    if reads(context) == (modality,):
        return np.zeros_like
    if kind(context.encoders, context.name) == CONCAT:
        return _beside(context, modality)
    return None if context.parts else _half(context, modality)


def without(rows: pa.Table, vectors: np.ndarray, modality: str) -> pa.Table:
    """Return rows of schema features(F) with other vectors, float32 [n, F], and the modality flagged as not used."""
    flag = f"has_{modality}"
    rows = rows.set_column(rows.column_names.index(flag), flag, pa.array(np.zeros(len(rows), bool)))
    return rows.set_column(rows.column_names.index("vector"), "vector", io.vectors(vectors))


def _half(context: Context, modality: str) -> Blank | None:
    encoder = _loaded(context)
    halves = encoder.halves if isinstance(encoder, Halves) else {}
    if modality not in halves:
        return None
    ends = dict(zip(halves, np.cumsum(list(halves.values())).tolist(), strict=True))
    columns = slice(ends[modality] - halves[modality], ends[modality])

    def zeroed(vectors: np.ndarray) -> np.ndarray:
        out = vectors.copy()
        out[:, columns] = 0
        return out

    return zeroed


def _beside(context: Context, modality: str) -> Blank | None:
    """Do as `blank` for a concat: each part by itself, scaled to length 1 again if something of it is left."""
    blanks = [blank(part, modality) for part in context.parts]
    if None in blanks:
        return None
    ends = np.cumsum([_width(part) for part in context.parts])[:-1]
    rescaled = [len(reads(part)) > 1 for part in context.parts]

    def each(vectors: np.ndarray) -> np.ndarray:
        parts = [one(x) for one, x in zip(blanks, np.split(vectors, ends, axis=1), strict=True) if one is not None]
        return np.hstack([unit_rows(x)[0] if again else x for x, again in zip(parts, rescaled, strict=True)])

    return each


def _width(context: Context) -> int:
    """Return F of a part, from its features if they are made anyway, else from its network."""
    if context.name in context.params.encoders:
        first = io.shards(context.layout.features(context.name), "features")[0]
        return int(pq.read_schema(first).field("vector").type.list_size)
    return sum(map(_width, context.parts)) if context.parts else _loaded(context).width


def _loaded(context: Context) -> Encoder:
    encoder: Encoder = spec(context.encoders, context.name).make(context, settings(context.encoders, context.name))
    return encoder
