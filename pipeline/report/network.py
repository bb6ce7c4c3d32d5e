"""The network of a run: a digest of the feature set that the recommender reads, for figures.

Items, images, encoders and pre-training all change its vectors, so figures of equal digests were
made from one run of them.
"""

import hashlib

from alignrec.pipeline import io
from alignrec.pipeline.runtime.layout import Layout

NETWORK = "network"  # key in metrics.json and in each table of the docs
DIGEST_DIGITS = 12  # of the sha256, in hexadecimal
ROWS_PER_HASH = 4096  # hashed at a time, to bound memory


def digest_vectors(layout: Layout, *names: str) -> str:
    """Return the start of the sha256 of feature sets' vectors; empty if one of them is not there.

    Files are not hashed, as their metadata names the code that wrote them.
    """
    total = hashlib.sha256()
    for name in names:
        folder = layout.features(name)
        if not any(folder.glob("features-*.parquet")):
            return ""
        vectors = io.map_features(folder)  # float32 [I, F]
        total.update(f"{name} {vectors.shape} ".encode())
        for start in range(0, len(vectors), ROWS_PER_HASH):
            total.update(vectors[start : start + ROWS_PER_HASH].tobytes())
    return total.hexdigest()[:DIGEST_DIGITS]
