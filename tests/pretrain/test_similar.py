"""Hard negatives: which items are similar, and that they come into one batch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pretraining import digests, run, shop, task

from pipeline.pretrain import corpus, similar
from pipeline.pretrain.corpus import Corpus

V = 40


def bag_of(text: np.ndarray, idf: np.ndarray) -> np.ndarray:
    bag = np.zeros(V)
    for piece in text:
        bag[piece] += idf[piece] if piece > 3 else 0
    return bag / (np.linalg.norm(bag) or 1)


@pytest.mark.parametrize("block", [1, 7, 256])
def test_similar_items_are_those_of_the_plain_formula(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "BLOCK", block)
    rng = np.random.default_rng(0)
    texts = [np.array([0, *rng.integers(4, V, rng.integers(0, 5)), 2]) for _ in range(60)]
    idf = Corpus(texts, np.arange(60), np.zeros((0, 8, 8, 3), np.uint8)).idf(V)
    items = np.arange(0, 60, 2)
    got = similar.by_text(texts, items, idf)
    assert (got[1::2] == -1).all(), "items held out have none"
    bags = {i: bag_of(texts[i], idf) for i in items}
    for i in items:
        cosine = {j: round(float(bags[i] @ bags[j]), 9) for j in items}
        near = sorted((j for j in items if 0 < cosine[j] < 1), key=lambda j: (-cosine[j], j))[: similar.MOST]
        own = got[i][got[i] >= 0]
        assert [cosine[j] for j in own] == [cosine[j] for j in near]
        assert set(own) <= set(items) - {i}


def test_rare_words_count_more_and_equal_texts_are_no_negatives() -> None:
    """Item 0 shares a rare piece with 1, a common one with all others; 2 has its very text."""
    texts = [
        np.array(t) for t in ([0, 4, 5, 2], [0, 5, 6, 2], [0, 4, 5, 2], *([0, 4, 7 + i, 2] for i in range(9)), [0, 2])
    ]
    idf = Corpus(texts, np.arange(13), np.zeros((0, 8, 8, 3), np.uint8)).idf(V)
    got = similar.by_text(texts, np.arange(13), idf)
    assert got[0][0] == 1
    assert 2 not in got[0]
    assert 0 not in got[0]
    assert (got[12] == -1).all(), "no text"


def test_an_epoch_has_every_item_once_and_groups_stand_together() -> None:
    n = 300
    partner = np.full((n, 3), -1)
    partner[:, 1] = np.arange(n) ^ 1  # pairs
    order = corpus.shuffled(np.arange(n), np.random.default_rng(0), partner, 2)
    assert sorted(order) == list(range(n))
    assert (order[::2] ^ 1 == order[1::2]).all()
    firsts = order[::2] // 2
    assert abs(np.corrcoef(firsts, np.arange(n // 2))[0, 1]) < 0.2, "groups are in random order"


@pytest.mark.parametrize(("hard", "least", "most"), [(0, 1.0, 1.1), (1, 2.0, 2.2), (2, 3.0, 3.3), (10, 6.0, 6.6)])
def test_groups_have_at_most_so_many_similar_items(hard: int, least: float, most: float) -> None:
    """Items are similar in sixes; two groups of one six seldom stand side by side."""
    n = 600
    six = np.array([[j for j in range(i // 6 * 6, i // 6 * 6 + 6) if j != i] for i in range(n)])
    order = corpus.shuffled(np.arange(n), np.random.default_rng(0), six, hard)
    assert sorted(order) == list(range(n))
    runs = 1 + np.count_nonzero(np.diff(order // 6))
    assert least <= n / runs < most
    assert order.tolist() == corpus.shuffled(np.arange(n), np.random.default_rng(0), six, hard).tolist()


def test_batches_have_more_similar_items_than_random_ones() -> None:
    def near(hard: int) -> float:
        toy = task(240, hard_negatives=hard, held_out=0.0)
        lists = similar.by_text(toy.corpus.texts, toy.train, toy.corpus.idf(12))
        order = corpus.shuffled(toy.train, np.random.default_rng(1), toy.similar, hard)
        return float(np.mean([np.isin(lists[part], part).any(axis=1).mean() for part in corpus.batches(order, 8)]))

    assert near(1) > 1.5 * near(0)
    assert near(3) > near(0)


def test_items_held_out_are_in_no_group() -> None:
    toy = task(60, hard_negatives=2, held_out=0.3)
    assert toy.similar is not None
    assert not np.isin(toy.similar, toy.held_out).any()
    assert task(60).similar is None


def test_it_is_another_training_and_the_same_one_each_time(tmp_path: Path) -> None:
    for folder, hard in {"a": 2, "b": 2, "plain": 0}.items():
        shop(tmp_path / folder, hard_negatives=hard, steps=5, batch_size=16, itc=1.0)
        run(tmp_path / folder)
    a, b, plain = (digests(tmp_path / folder) for folder in ("a", "b", "plain"))
    assert a == b
    assert a["encoder.safetensors"] != plain["encoder.safetensors"]


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_items_are_no_trouble(n: int) -> None:
    items = np.arange(n)
    lists = similar.by_text([np.array([0, 5, 2])] * n, items, np.ones(V, np.float32))
    assert corpus.shuffled(items, np.random.default_rng(0), lists, 2).tolist() == items.tolist()


def test_cosines_below_one_by_more_than_rounding_are_negatives() -> None:
    texts = [np.array([0, *[5] * 40, 2]), np.array([0, *[5] * 40, 6, 2])]
    lists = similar.by_text(texts, np.arange(2), np.ones(V, np.float32))
    assert lists[:, 0].tolist() == [1, 0]
    assert 40 / math.sqrt(40**2 + 1) < similar.SAME
