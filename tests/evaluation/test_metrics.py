"""Metrics by hand, slowly, and against others' numbers.

tests/oracles/metrics_mmrec.npz: the published code's, 200 users. metrics_ranx.npz: ranx 0.3.21's (evaluate, by user),
60 users with 1 to 15 random targets among 90 items, 50 shown in random order; its numbers are kept, because it compiles
for 40 seconds before it answers.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops import two_tastes

from pipeline.evaluation.metrics import METRICS, evaluate, judge
from pipeline.evaluation.protocol import Protocol, questions
from pipeline.interactions.split import Pairs


def test_a_case_by_hand() -> None:
    top = np.array([[4, 0, 9, 2], [7, 8, -1, -1]], np.int32)
    targets = Pairs(np.array([0, 0, 0, 1], np.int32), np.array([0, 2, 5, 3], np.int32))
    mean = judge(top, np.array([0, 1], np.int32), targets, 10, [2, 4]).mean
    gain = 1 / np.log2([2, 3, 4, 5])
    assert mean["recall", 2] == pytest.approx((1 / 3 + 0) / 2)
    assert mean["precision", 4] == pytest.approx((2 / 4 + 0) / 2)
    assert mean["ndcg", 4] == pytest.approx(((gain[1] + gain[3]) / gain[:3].sum() + 0) / 2)
    assert mean["map", 4] == pytest.approx(((1 / 2 + 2 / 4) / 3 + 0) / 2)
    assert mean["map", 2] == pytest.approx((1 / 2 / 2 + 0) / 2)


def test_an_empty_place_is_no_hit_on_the_neighbour_in_key_order() -> None:
    top = np.array([[-1]], np.int32)  # user 1: 1 * 10 - 1 is the key of user 0, item 9
    targets = Pairs(np.array([0, 1], np.int32), np.array([9, 0], np.int32))
    assert judge(top, np.array([1], np.int32), targets, 10, [1]).mean["recall", 1] == 0


@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_published_numbers_at_every_cutoff(metric: str) -> None:
    with np.load(Path(__file__).parents[1] / "oracles/metrics_mmrec.npz", allow_pickle=False) as oracle:
        top, items, counts, expected = (oracle[n] for n in ("topk", "positives", "positives_len", metric))
    users = np.arange(len(top), dtype=np.int32)
    owner = np.repeat(users, counts)
    order = np.lexsort((items, owner))
    targets = Pairs(owner[order], items[order].astype(np.int32))
    mean = judge(top.astype(np.int32), users, targets, int(max(top.max(), items.max())) + 1, range(1, 51)).mean
    assert np.abs([mean[metric, k] for k in range(1, 51)] - expected).max() < 1e-12


@pytest.mark.parametrize("metric", METRICS)
def test_equals_ranx_for_every_user_where_its_definition_is_ours(metric: str) -> None:
    with np.load(Path(__file__).parents[1] / "oracles/metrics_ranx.npz", allow_pickle=False) as oracle:
        top, users, items, expected = (oracle[n] for n in ("top", "users", "items", metric))
    everyone, counts = np.unique(users, return_counts=True)
    per_user = judge(top, everyone, Pairs(users, items), 90, (5, 10, 20, 50)).per_user
    for k, theirs in zip((5, 10, 20, 50), expected, strict=True):
        same = counts <= k if metric == "map" else counts > 0  # its average precision is over |T|, not min(K, |T|)
        assert np.abs(per_user[metric, k] - theirs)[same].max() < 1e-12
        assert same.sum() > 10


def slowly(metric: str, top: list[int], targets: set[int], k: int) -> float:
    """Return a user's figure as its definition reads, item by item."""
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
    per_user = judge(top, np.arange(6, dtype=np.int32), pairs, n_items, (5, 10, 20, 50)).per_user
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
    assert evaluate(user, item, split, "valid", [1]).mean["recall", 1] == 1
    assert evaluate(user, item, split, "test", [1]).mean["recall", 1] == 0  # valid is not masked under `mmrec`
    evaluation = evaluate(user, item, split, "test", [2])
    assert evaluation.mean["recall", 2] == 1
    assert evaluation.users.tolist() == list(range(split.n_users))


def test_strict_masks_valid_too_and_never_shares_a_name_or_fingerprint() -> None:
    split = two_tastes()
    item = np.eye(split.n_items, dtype=np.float32)
    user = np.zeros((split.n_users, split.n_items), np.float32)
    user[split.valid.users, split.valid.items] = 2
    user[split.test.users, split.test.items] = 1
    pairs = questions(split)
    protocols = [
        Protocol(*kind, "5-core", pairs) for kind in (("mmrec", "mmrec"), ("strict", "mmrec"), ("mmrec", "user-time"))
    ]
    recalls = [evaluate(user, item, split, "test", [1], p.seen(split, "test")).mean["recall", 1] for p in protocols]
    assert recalls == [0, 1, 0]
    assert all(p.seen(split, "valid") is split.train for p in protocols)
    assert len({p.name for p in protocols}) == len({p.fingerprint for p in protocols}) == 3


def test_another_split_or_catalogue_is_another_fingerprint() -> None:
    split = two_tastes()
    others = [replace(split, n_items=split.n_items + 1), replace(split, valid=split.test, test=split.valid), split]
    fingerprints = [Protocol("mmrec", "mmrec", "5-core", questions(s)).fingerprint for s in (split, *others)]
    assert len(set(fingerprints)) == 3
    assert fingerprints[0] == fingerprints[3]
