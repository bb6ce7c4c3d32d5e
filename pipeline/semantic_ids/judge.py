"""Semantic IDs judged without a generator: collisions, and neighbours kept together, next to random codes.

I items, n of them with codes, L levels, K codes a level.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline.semantic_ids.quantizer import Coding

BLOCK = 1 << 20
"""edges read at a time"""


def judge_codes(coding: Coding, edges: Path, k: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the figures of a feature set's codes and of random ones: {codes, random} x {collide, neighbours}."""
    random = np.random.default_rng(seed).integers(k, size=coding.codes.shape, dtype=np.int32)
    first = np.full((2, len(coding.directed)), -1, np.int32)
    first[:, coding.directed] = coding.codes[:, 0], random[:, 0]
    together = share_of_neighbours(first, edges)
    return {
        name: {"collide": round(share_colliding(codes), 6), "neighbours": round(share, 6)}
        for name, codes, share in zip(("codes", "random"), (coding.codes, random), together, strict=True)
    }


def share_colliding(codes: np.ndarray) -> float:
    """Return the share of items that share all codes with another, int32 [n, L]."""
    _, group, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return float((counts[group.reshape(-1)] > 1).mean())


def share_of_neighbours(first: np.ndarray, edges: Path) -> list[float]:
    """Return how often an item and a neighbour share the first code.

    Args:
        first: int32 [m, I], the first codes of m methods; -1 for items without codes, whose edges do not count.
        edges: table EDGES; those from an item to itself do not count.
    """
    together, pairs = np.zeros(len(first), np.int64), 0
    with pq.ParquetFile(edges, pre_buffer=False) as file:
        for batch in file.iter_batches(BLOCK, columns=["item_id", "neighbour_id"]):
            item, other = batch["item_id"].to_numpy(), batch["neighbour_id"].to_numpy()
            counts = (item != other) & (first[0, item] >= 0) & (first[0, other] >= 0)
            together += (first[:, item[counts]] == first[:, other[counts]]).sum(axis=1)
            pairs += int(counts.sum())
    return (together / max(pairs, 1)).tolist()
