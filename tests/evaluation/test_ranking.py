"""Ranking against a sort per user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignrec.pipeline.evaluation import metrics
from alignrec.pipeline.interactions.split import Pairs


def plain(user: np.ndarray, item: np.ndarray, k: int, seen: Pairs) -> list[list[int]]:
    """Rank each user's items by sorting (-score, item)."""
    masked = set(zip(seen.users.tolist(), seen.items.tolist(), strict=True))
    top = []
    for u, vector in enumerate(user):
        left = [i for i in range(len(item)) if (u, i) not in masked]
        best = sorted(left, key=lambda i: (-float(vector @ item[i]), i))[:k]
        top.append(best + [-1] * (k - len(best)))
    return top


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 40))
def test_fast_is_plain_with_ties_masks_and_blocks(seed: int, k: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    user, item = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (6, 7))  # small integers: many ties
    masked = np.argwhere(rng.random((6, 7)) < 0.3).astype(np.int32)
    seen = Pairs(masked[:, 0], masked[:, 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK", block)
        assert metrics.topk(user, item, k, seen).tolist() == plain(user, item, k, seen)
