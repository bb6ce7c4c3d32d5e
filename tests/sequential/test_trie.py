"""The tree of ids and its search beside plain enumeration."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.sequential.trie import Trie, log_probabilities, search

V, DEPTH = 9, 3


def ids(n: int = 30) -> np.ndarray:
    """Return different ids in no order, int64 [n, 3]."""
    rng = np.random.default_rng(0)
    every = np.unique(rng.integers(V, size=(4 * n, DEPTH)), axis=0)
    return rng.permutation(every)[:n]


def tables(b: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits of each code, given the history and the codes before: [b, V], [b, V, V], [b, V, V, V]."""
    torch.manual_seed(0)
    return torch.randn(b, V), torch.randn(b, V, V), torch.randn(b, V, V, V)


def following(logits: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
    def ask(written: Tensor) -> Tensor:
        b, w, depth = written.shape
        at = (torch.arange(b)[:, None].expand(b, w), *(written[:, :, level] for level in range(depth)))
        return logits[depth][at]

    return ask


def plain(codes: np.ndarray, logits: tuple[Tensor, ...], row: int) -> np.ndarray:
    """Return log p of every id by enumeration: at each level a softmax over the codes that continue the prefix."""
    result = []
    for one in codes:
        total = 0.0
        for level in range(DEPTH):
            same = codes[(codes[:, :level] == one[:level]).all(1)]
            among = logits[level][(row, *one[:level])]
            total += float(among[one[level]] - among[np.unique(same[:, level])].logsumexp(0))
        result.append(total)
    return np.array(result)


def test_probabilities_are_those_of_enumeration_and_sum_to_1() -> None:
    codes, logits = ids(), tables(1)
    trie = Trie(codes, np.arange(len(codes)), torch.device("cpu"))
    stacked = torch.stack(
        [torch.stack([logits[level][(0, *one[:level])] for level in range(DEPTH)]) for one in torch.from_numpy(codes)]
    )
    ours = log_probabilities(trie, stacked, torch.arange(len(codes))).numpy()
    np.testing.assert_allclose(ours, plain(codes, logits, 0), rtol=1e-5)
    assert np.exp(ours).sum() == pytest.approx(1, abs=1e-5)


def test_with_enough_beams_the_ranking_is_that_of_all_items() -> None:
    codes, logits, b = ids(), tables(4), 4
    trie = Trie(codes, np.arange(len(codes)), torch.device("cpu"))
    seen = torch.zeros(b, len(codes), dtype=torch.bool)
    seen[1, [3, 4, 5]] = True
    top = search(trie, following(logits), seen, len(codes), len(codes)).numpy()
    for row in range(b):
        expected = np.argsort(-plain(codes, logits, row), kind="stable")
        expected = expected[~seen[row].numpy()[expected]]
        assert top[row, : len(expected)].tolist() == expected.tolist()
        assert (top[row, len(expected) :] == -1).all()


@pytest.mark.parametrize("width", [1, 2, 5])
def test_few_beams_still_give_items_that_exist_each_once_and_none_that_was_had(width: int) -> None:
    codes, items, b = ids(), np.arange(30) * 2 + 1, 8  # items with even numbers have no id
    trie = Trie(codes, items, torch.device("cpu"))
    seen = torch.zeros(b, 61, dtype=torch.bool)
    seen[:, 1:31:2] = True
    top = search(trie, following(tables(b)), seen, width, 10).numpy()
    assert (top >= 0).any()
    for row in top:
        found = row[row >= 0]
        assert len(np.unique(found)) == len(found)
        assert set(found.tolist()) <= set(items.tolist()) - set(range(1, 31, 2))


def test_one_beam_follows_the_best_code_of_each_level() -> None:
    codes, logits = ids(), tables(1)
    trie = Trie(codes, np.arange(len(codes)), torch.device("cpu"))
    left = codes
    for level in range(DEPTH):
        choices = np.unique(left[:, level])
        best = choices[int(logits[level][(0, *left[0, :level])][choices].argmax())]
        left = left[left[:, level] == best]
    top = search(trie, following(logits), torch.zeros(1, len(codes), dtype=torch.bool), 1, 1)
    assert codes[int(top[0, 0])].tolist() == left[0].tolist()


def test_equal_ids_are_refused() -> None:
    with pytest.raises(AssertionError, match="same id"):
        Trie(np.array([[1, 2], [1, 2]]), np.arange(2), torch.device("cpu"))
