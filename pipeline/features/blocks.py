"""Blocks of columns that `linear` and the teachers of BEiT3 join, by what they are made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignrec.pipeline.encoders.params import MAX_UNKNOWN
from alignrec.pipeline.features.folder import FeatureSet, Modality
from alignrec.pipeline.features.quality import text_shares
from alignrec.pipeline.linalg.projections import Block


def joinable_blocks(
    parts: Sequence[FeatureSet], distinct: Sequence[bool], image: float
) -> list[Block]:
    """Return the blocks of `distinct` parts: image-only ones of weight `image`, others of weight 1.

    Texts that their encoder cannot read are left out unless no other blocks are left.
    """
    blocks = []
    readable = []
    for number, part in enumerate(parts):
        if not distinct[number]:
            continue

        shares = text_shares(part.shards)
        is_read = shares is None or shares.unknown <= MAX_UNKNOWN
        of_images = columns_read_from(part, "image")
        of_texts = columns_read_from(part, "text")
        for columns, weight in ((~of_images, 1.0), (of_images, image)):
            if columns.any():
                block = Block(number, columns, weight)
                blocks.append(block)
                if is_read or not of_texts[columns].all():
                    readable.append(block)

    return readable or blocks


def columns_read_from(part: FeatureSet, modality: Modality) -> np.ndarray:
    """Return which columns are computed from this modality and no other, bool [F]."""
    spans = [np.repeat([*span.reads] == [modality], span.width) for span in part.spans]
    return np.concatenate(spans)
