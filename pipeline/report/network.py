"""The network of a run, known by the vectors that it gives to some items.

Processors and numbers of threads round otherwise, so vectors are compared rather than hashed: a run
is of the recorded network if most of its vectors point where those that git keeps do.
"""

import hashlib
from pathlib import Path

import numpy as np

from alignrec.pipeline import io
from alignrec.pipeline.linalg.projections import paired_cosines
from alignrec.pipeline.runtime.layout import Layout

NETWORK = "network"  # key in metrics.json and in each table of the docs
SAMPLE = "network.npy"  # among the figures of a dataset
SET = "beit3"
ITEMS = 64  # of a sample
LEAST_COSINE = 0.8  # median, of one network: one thread in place of two .94, another seed .58


def sample_network(layout: Layout) -> np.ndarray:
    """Return vectors of items at equal distances, float16 [64, F], or the equivalent recorded ones.

    Empty if there is no set `beit3`.
    """
    folder = layout.features(SET)
    if not any(folder.glob("features-*.parquet")):
        return np.empty((0, 0), np.float16)
    vectors = io.map_features(folder)  # float32 [I, F]
    rows = np.linspace(0, len(vectors) - 1, ITEMS).astype(int)
    sample = vectors[rows].astype(np.float16)
    recorded = recorded_figures(layout) / SAMPLE
    if recorded.is_file() and is_one_network(earlier := np.load(recorded), sample):
        return earlier
    return sample


def is_one_network(sample: np.ndarray, other: np.ndarray) -> bool:
    if sample.shape != other.shape:
        return False
    cosines = paired_cosines(sample.astype(np.float32), other.astype(np.float32))
    return bool(np.median(cosines) >= LEAST_COSINE)


def name_network(sample: np.ndarray) -> str:
    return hashlib.sha256(sample.tobytes()).hexdigest()[:12] if sample.size else ""


def recorded_figures(layout: Layout) -> Path:
    """Return the folder of the figures of a dataset that git keeps."""
    return layout.out("figures")
