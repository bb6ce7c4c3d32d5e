"""A few images and texts -> vectors in the space of a released feature set, in memory."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache

from pipeline.encode import batching
from pipeline.images.decode import Decoded, normalise
from pipeline.images.params import Images
from pipeline.release import encoder
from pipeline.release.encoder import Loaded


def normalised(data: bytes, facts: encoder.Facts) -> Decoded:
    return normalise(data, facts.image_size, facts.image_quality, Images().max_pixels)


def vectors(
    loaded: Loaded, texts: Sequence[str], images: Sequence[bytes | None], done: Callable[[int], object] = int
) -> batching.Encoded:
    """Encode B items by the modalities that the feature set reads; texts may be empty, JPEGs None."""
    reads, none = loaded.facts.reads, [None] * len(images)
    visible = texts if "text" in reads else [""] * len(texts)
    size, workers = min(loaded.facts.batch_size, encoder.MOST_AT_A_TIME), os.cpu_count() or 1
    made = batching.encode(loaded.encoder, visible, images if "image" in reads else none, size, done, workers)
    if made.halved.any():
        _warn(batching.HALVED)
    return made


@cache
def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)
