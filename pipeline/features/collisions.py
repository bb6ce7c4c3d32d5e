"""Numbers that separate items of equal codes; without FAISS, as exports number items too."""

import numpy as np


def number_equal_codes(codes: np.ndarray) -> np.ndarray:
    """Number items of equal codes, int [n, L], from 0 in item order; return int32 [n]."""
    group = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[order])

    suffix = np.empty(len(codes), np.int32)
    suffix[order] = np.arange(len(codes)) - first
    return suffix
