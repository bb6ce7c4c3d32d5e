"""Feature sets side by side: each part scaled to length 1, zero where an item has nothing that the part reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline import io
from pipeline.config.base import Name, Section
from pipeline.encode import batching
from pipeline.encode.base import Context, Encoder, Spec
from pipeline.errors import UserError
from pipeline.ops.rows import unit_rows


class ConcatParams(Section):
    """What kind `concat` reads."""

    of: Annotated[list[Name], Field(min_length=2)]
    """encoders, in order; those that `encode.encoders` names too are encoded once"""


def make(context: Context, params: ConcatParams) -> Encoder:
    """Refuse: rows are made of the parts' rows, see `feature_sets.rows_of`."""
    raise UserError(f"'encoders.{context.name}': a concat has no network of its own")


CONCAT = Spec(make, ConcatParams)


def beside(parts: Sequence[pa.Table]) -> pa.Table:
    """Return rows of schema features(F) from those of the parts, which are of the same items.

    An image or a text counts as used if any part used it.
    """
    vectors = np.hstack([unit_rows(io.matrix(part["vector"]))[0] for part in parts])
    flags = [np.logical_or.reduce([part[name].to_numpy() for part in parts]) for name in ("has_image", "has_text")]
    return batching.table(parts[0].select(["item_id", "asin"]), batching.Encoded(vectors, *flags))
