"""SASRec and TIGER: beside plain steps, causal, and the same alone as in a batch."""

import math

import numpy as np
import pytest
import torch
from sequential_toys import CODES, CYCLE, settings
from torch import Tensor

from pipeline.sequential.base import Sequential
from pipeline.sequential.sasrec import SASRec
from pipeline.sequential.tiger import START, Tiger

BOTH = ("sasrec", "tiger")


def network(name: str, **keys: object) -> Sequential:
    torch.manual_seed(0)
    made = SASRec(CYCLE, settings(**keys)) if name == "sasrec" else tiger(CODES, np.arange(CYCLE), **keys)
    return made.eval()


def tiger(codes: np.ndarray, rows: np.ndarray, **keys: object) -> Tiger:
    return Tiger(codes, rows, CYCLE, settings(**keys))


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * weight + bias


@torch.no_grad()
def plain(network: SASRec, history: list[int], heads: int, after: int = 0) -> Tensor:
    """Return the scores after one history, item by item and head by head: the article's equations, float [I].

    `after` is how many more items the window holds, by which positions count.
    """
    table, d = network.items.weight, network.positions.embedding_dim
    n, size = len(history), d // heads
    x = [table[item + 1] * math.sqrt(d) + network.positions.weight[n - 1 - i + after] for i, item in enumerate(history)]
    for block in network.blocks:
        normed = [norm(v, block.attended.weight, block.attended.bias) for v in x]
        read = []
        for i in range(n):
            parts = []
            for h in range(heads):
                cut = slice(h * size, (h + 1) * size)
                q = (block.query.weight @ normed[i])[cut]
                scores = torch.stack([q @ (block.key.weight @ x[j])[cut] for j in range(i + 1)]) / math.sqrt(size)
                parts.append(sum(p * (block.value.weight @ x[j])[cut] for j, p in enumerate(scores.softmax(0))))
            read.append(torch.cat(parts))
        x = [v + r for v, r in zip(x, read, strict=True)]
        first, _, _, second = block.feed
        for i, v in enumerate(x):
            inner = (first.weight @ norm(v, block.fed.weight, block.fed.bias) + first.bias).clamp(min=0)
            x[i] = v + second.weight @ inner + second.bias
    return table[1:] @ norm(x[-1], network.last.weight, network.last.bias)


def test_sasrec_is_its_equations() -> None:
    ours = network("sasrec", heads=2, layers=2)
    assert isinstance(ours, SASRec)
    history = [3, 7, 1, 9]
    with torch.no_grad():
        scores = ours(torch.tensor([[-1, -1, *history]]), ours.items.weight)[0, -1] @ ours.items.weight[1:].T
    torch.testing.assert_close(scores, plain(ours, history, 2), rtol=1e-4, atol=1e-5)


def test_sasrec_s_loss_is_cross_entropy_over_all_items_at_every_item_but_the_first() -> None:
    ours = network("sasrec")
    assert isinstance(ours, SASRec)
    windows = [[-1, 2, 5, 7], [1, 2, 3, 4]]
    terms = [
        -plain(ours, row[:i], 2, len(row) - 1 - i).log_softmax(0)[row[i]]
        for row in ([2, 5, 7], [1, 2, 3, 4]) for i in range(1, len(row))
    ]  # fmt: skip
    torch.testing.assert_close(ours.loss(torch.tensor(windows)), torch.stack(terms).mean(), rtol=1e-4, atol=1e-5)


def test_sasrec_does_not_look_ahead() -> None:
    ours = network("sasrec")
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, 8]])
    first, second = (ours(histories, ours.items.weight) for histories in (one, other))
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.equal(first[:, 2:], second[:, 2:])


def test_tiger_s_decoder_does_not_look_ahead_and_beams_do_not_see_each_other() -> None:
    ours = network("tiger")
    assert isinstance(ours, Tiger)
    asked: dict[int, Tensor] = {}

    def logits(beams: list[list[int]]) -> Tensor:
        return ours.following(torch.tensor([[0, 5, 2]]))(torch.tensor([beams]))

    together, alone = logits([[2], [3], [5]]), logits([[3]])
    torch.testing.assert_close(together[:, 1], alone[:, 0])
    assert not torch.allclose(together[:, 0], together[:, 1])
    for last in (6, 7):
        tokens, mask = ours.read(torch.tensor([[0, 5, 2]]))
        asked[last] = ours.t5(
            input_ids=tokens, attention_mask=mask, decoder_input_ids=torch.tensor([[START, 2, last]])
        ).logits
    assert torch.equal(asked[6][:, :2], asked[7][:, :2])


def test_tiger_s_loss_is_cross_entropy_over_all_items() -> None:
    ours = network("tiger")
    windows = torch.tensor([[-1, 3, 4, item] for item in range(CYCLE)])
    with torch.no_grad():
        terms = torch.stack([ours.loss(row[None]) for row in windows])
        torch.testing.assert_close(ours.loss(windows), terms.mean())
    assert float((-terms).exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_a_history_is_ranked_the_same_alone_as_in_a_batch(name: str) -> None:
    ours = network(name, beams=12)
    histories = torch.tensor([[-1, -1, -1, -1, 4, 5], [-1, -1, 0, 3, 6, 9], [1, 2, 3, 4, 5, 6]])
    seen = torch.zeros(3, CYCLE, dtype=torch.bool)
    together = ours.rank(histories, seen, CYCLE)
    assert sorted(together[0].tolist()) == list(range(CYCLE))  # all of them, each once
    for row in range(3):
        assert torch.equal(ours.rank(histories[row : row + 1], seen[row : row + 1], CYCLE)[0], together[row])


@pytest.mark.parametrize("name", BOTH)
def test_what_was_had_is_not_recommended(name: str) -> None:
    seen = torch.zeros(1, CYCLE, dtype=torch.bool)
    seen[0, :9] = True
    top = network(name, beams=12).rank(torch.tensor([[0, 1, 2]]), seen, 5)[0].tolist()
    assert sorted(top[:3]) == [9, 10, 11]
    assert top[3:] == [-1, -1]


def test_an_item_without_an_id_is_neither_read_nor_recommended_nor_learned() -> None:
    torch.manual_seed(0)
    rows = np.arange(1, CYCLE)  # item 0 has no content
    ours = tiger(CODES[1:], rows, beams=12).eval()
    seen = torch.zeros(1, CYCLE, dtype=torch.bool)
    assert 0 not in ours.rank(torch.tensor([[3, 4]]), seen, CYCLE)[0].tolist()
    assert float(ours.loss(torch.tensor([[3, 4, 0]])).detach()) == 0
    both, one = (ours.loss(torch.tensor(rows)) for rows in ([[3, 4, 5], [3, 4, 0]], [[3, 4, 5]]))
    torch.testing.assert_close(both, one)
    assert ours.rank(torch.tensor([[-1, 0]]), seen, 3).shape == (1, 3)  # nothing at all can be read
