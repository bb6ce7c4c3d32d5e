"""Numbers that separate items of equal codes."""

import numpy as np


def number_equal_codes(codes: np.ndarray) -> np.ndarray:
    """Number items of equal codes, int [n, L], from 0 in item order; return int32 [n]."""
    group = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[order])

    suffix = np.empty(len(codes), np.int32)
    suffix[order] = np.arange(len(codes)) - first
    return suffix


def number_new_items(
    codes: np.ndarray, older_row: np.ndarray, older_codes: np.ndarray, older_suffix: np.ndarray
) -> np.ndarray:
    """Number items of equal codes, int [n, L], so that items with the codes of before keep theirs.

    Others follow in item order, after the largest number that any item had, also one that is gone.

    Args:
        codes: of the items, int [n, L].
        older_row: row of each item among the older ones, int64 [n], -1 if it is new.
        older_codes: of the m older items, int [m, L].
        older_suffix: numbers of the older items, int [m].

    Returns:
        int32 [n].
    """
    both = np.concatenate([older_codes, codes])
    group = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    next_number = np.zeros(group.max(initial=-1) + 1, np.int64)
    np.maximum.at(next_number, group[: len(older_codes)], older_suffix.astype(np.int64) + 1)

    kept = np.zeros(len(codes), bool)
    known = np.flatnonzero(older_row >= 0)
    kept[known] = (older_codes[older_row[known]] == codes[known]).all(axis=1)
    suffix = np.empty(len(codes), np.int32)
    suffix[kept] = older_suffix[older_row[kept]]
    new_groups = group[len(older_codes) :][~kept]
    suffix[~kept] = next_number[new_groups] + number_equal_codes(codes[~kept])
    return suffix
