"""Metrics against a slow version and the published code's figures (tests/oracles/metrics_mmrec.npz)."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop.tastes import two_tastes

from alignrec.pipeline.dataset.split import Pairs
from alignrec.pipeline.models import metrics
from alignrec.pipeline.models.metrics import METRIC_FUNCTIONS, evaluate_vectors, judge_rankings


def test_an_empty_place_is_no_hit_on_the_neighbour_in_key_order() -> None:
    top = np.array([[-1]], np.int32)  # user 1: 1 * 10 - 1 is the key of user 0, item 9
    targets = Pairs(np.array([0, 1], np.int32), np.array([9, 0], np.int32))
    assert judge_rankings(top, np.array([1], np.int32), targets, 10, [1]).mean["recall", 1] == 0


@pytest.mark.parametrize("metric", METRIC_FUNCTIONS)
def test_equals_the_published_numbers_at_every_cutoff(metric: str) -> None:
    with np.load(Path(__file__).parents[1] / "oracles/metrics_mmrec.npz", allow_pickle=False) as oracle:
        top, items, counts, expected = (oracle[n] for n in ("topk", "positives", "positives_len", metric))
    users = np.arange(len(top), dtype=np.int32)
    owner = np.repeat(users, counts)
    order = np.lexsort((items, owner))
    targets = Pairs(owner[order], items[order].astype(np.int32))
    mean = judge_rankings(top.astype(np.int32), users, targets, int(max(top.max(), items.max())) + 1, range(1, 51)).mean
    assert np.abs([mean[metric, k] for k in range(1, 51)] - expected).max() < 1e-12


def slowly(metric: str, top: list[int], targets: set[int], k: int) -> float:
    gain = hits = 0.0
    for rank, item in enumerate(top[:k], start=1):
        if item in targets:
            hits += 1
            gain += 1 / math.log2(rank + 1) if metric == "ndcg" else hits / rank
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(targets)) + 1))
    return {
        "recall": hits / len(targets),
        "precision": hits / k,
        "ndcg": gain / ideal,
        "map": gain / min(k, len(targets)),
    }[metric]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_every_user_equals_the_slow_version(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_items = int(rng.integers(50, 70))
    wanted = [np.sort(rng.permutation(n_items)[: rng.integers(1, 60)]) for _ in range(6)]
    top = np.array([rng.permutation(n_items)[:50] for _ in wanted], np.int32)
    top[:, int(rng.integers(0, 50)) :] = -1  # the catalogue ran out
    pairs = Pairs(np.repeat(np.arange(6, dtype=np.int32), [len(w) for w in wanted]), np.concatenate(wanted))
    per_user = judge_rankings(top, np.arange(6, dtype=np.int32), pairs, n_items, (5, 10, 20, 50)).per_user
    for (metric, k), values in per_user.items():
        slow = [slowly(metric, row, set(w.tolist()), k) for row, w in zip(top.tolist(), wanted, strict=True)]
        assert values == pytest.approx(slow, abs=1e-12)


def test_evaluate_masks_train_and_reads_the_targets_of_its_split() -> None:
    split = two_tastes()
    item = np.eye(split.n_items, dtype=np.float32)
    user = np.zeros((split.n_users, split.n_items), np.float32)
    user[split.train.users, split.train.items] = 3
    user[split.valid.users, split.valid.items] = 2
    user[split.test.users, split.test.items] = 1
    assert evaluate_vectors(user, item, split, "valid", [1]).mean["recall", 1] == 1
    assert evaluate_vectors(user, item, split, "test", [1]).mean["recall", 1] == 0  # valid is not masked under `mmrec`
    evaluation = evaluate_vectors(user, item, split, "test", [2])
    assert evaluation.mean["recall", 2] == 1
    assert evaluation.users.tolist() == list(range(split.n_users))


# --- ranking against a sort per user


def plain(user: np.ndarray, item: np.ndarray, k: int, seen: Pairs) -> list[list[int]]:
    """Rank each user's items by sorting (-score, item)."""
    masked = set(zip(seen.users.tolist(), seen.items.tolist(), strict=True))
    top = []
    for u, vector in enumerate(user):
        left = [i for i in range(len(item)) if (u, i) not in masked]
        best = sorted(left, key=lambda i: (-float(vector @ item[i]), i))[:k]
        top.append(best + [-1] * (k - len(best)))
    return top


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7))
def test_fast_is_plain_with_ties_masks_and_blocks(seed: int, k: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    user, item = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (6, 7))  # small integers: many ties
    masked = np.argwhere(rng.random((6, 7)) < 0.3).astype(np.int32)
    seen = Pairs(masked[:, 0], masked[:, 1])
    assert metrics.topk(user, item, k, seen, users_per_block=block).tolist() == plain(user, item, k, seen)


def test_users_share_a_pass_over_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[int] = []
    select = metrics.select_top_k
    monkeypatch.setattr(metrics, "SCORES_PER_BLOCK", 10)  # of 50 items
    monkeypatch.setattr(metrics, "select_top_k", lambda scores, k: blocks.append(len(scores)) or select(scores, k))
    user, item = (np.eye(n, 4, dtype=np.float32) for n in (40, 50))
    none = Pairs(np.empty(0, np.int32), np.empty(0, np.int32))
    metrics.topk(user, item, 3, none)
    assert blocks == [16, 16, 8]
