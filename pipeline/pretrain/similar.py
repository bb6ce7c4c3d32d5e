"""Items of similar text: the hard negatives of contrastive terms. No interaction is read.

Letters: I items, n items compared, V vocabulary, M kept of each item at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from pipeline.beit3.tokenizer import UNK
from pipeline.interactions import cooccurrence

MOST = 10
"""similar items kept of each item, M; bounds memory"""
BLOCK = 256
"""items compared with all others at a time; bounds memory"""
SAME = 1 - 1e-6
"""cosine from which two texts count as one: then either item is right, and neither is a negative of the other"""


def by_text(texts: Sequence[np.ndarray], items: np.ndarray, idf: np.ndarray) -> np.ndarray:
    """Return the items nearest to each by the cosine of their bags of pieces, weighted by IDF.

    Args:
        texts: I arrays of ids.
        items: int64 [n], sorted; others are compared with none.
        idf: float32 [V].

    Returns:
        int64 [I, M], highest cosine first, of equal ones the lower id; -1 where there are fewer.
    """
    bags = _bags([texts[i] for i in items], idf)
    transposed = sp.csr_array(bags.T)
    out = np.full((len(texts), MOST), -1, np.int64)
    for first in range(0, len(items), BLOCK):
        cosines = sp.csr_array(bags[first : first + BLOCK] @ transposed)
        cosines.data[cosines.data >= SAME] = 0  # the item itself too
        cosines.eliminate_zeros()
        cosines.sort_indices()
        top = cooccurrence.descending(cooccurrence.top_k(cosines, MOST), MOST)
        out[items[first : first + BLOCK]] = np.where(top >= 0, items[top], -1)
    return out


def _bags(texts: Sequence[np.ndarray], idf: np.ndarray) -> sp.csr_array:
    """Return the bag of pieces of each text, of length 1 or empty: float64 [n, V]."""
    ids = np.concatenate([np.empty(0, np.int64), *texts])
    row = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    bags = sp.csr_array((idf[ids] * (ids > UNK), (row, ids)), shape=(len(texts), len(idf)), dtype=np.float64)
    length = np.sqrt(bags.multiply(bags).sum(axis=1))
    bags.data /= np.where(length > 0, length, 1)[cooccurrence.rows(bags)]
    return bags
