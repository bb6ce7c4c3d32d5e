import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.evaluation import ranking
from pipeline.interactions.split import Pairs
from pipeline.ops import topk

NOTHING = Pairs(np.empty(0, np.int32), np.empty(0, np.int32))


def plain(user: np.ndarray, item: np.ndarray, k: int, seen: Pairs) -> list[list[int]]:
    """Rank one user after another by sorting (-score, item)."""
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
    taken = np.argwhere(rng.random((6, 7)) < 0.3).astype(np.int32)
    seen = Pairs(taken[:, 0], taken[:, 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK", block)
        assert ranking.topk(user, item, k, seen).tolist() == plain(user, item, k, seen)


def test_some_users_are_ranked_as_among_all() -> None:
    rng = np.random.default_rng(0)
    user, item = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=(8, 4)).astype(np.float32)
    seen = Pairs(np.array([1, 4], np.int32), np.array([3, 2], np.int32))
    some = np.array([4, 1, 7])
    assert ranking.topk(user, item, 3, seen, some).tolist() == ranking.topk(user, item, 3, seen)[some].tolist()


def test_all_equal_scores_give_the_lowest_items() -> None:
    values, ids = topk.select(torch.zeros(2, 50), 4)
    assert ids.tolist() == [[0, 1, 2, 3]] * 2
    assert not values.any()


def test_a_cutoff_beyond_the_catalogue_is_an_error() -> None:
    with pytest.raises(UserError, match=r"cutoff 5 .* 4 items"):
        ranking.topk(np.ones((1, 2), np.float32), np.ones((4, 2), np.float32), 5, NOTHING)
