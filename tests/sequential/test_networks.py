"""SASRec and TIGER: beside plain steps, causal, and the same alone as in a batch."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from sequential_toys import CODES, CYCLE, cycle, settings
from torch import Tensor

from pipeline.sequential.base import Sequential
from pipeline.sequential.bsarec import BSARec, BSARecParams
from pipeline.sequential.items import Reads
from pipeline.sequential.loop import fit
from pipeline.sequential.registry import NETWORKS
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
    table, d = network.items(), network.positions.embedding_dim
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
        scores = ours(torch.tensor([[-1, -1, *history]]), ours.items())[0, -1] @ ours.items()[1:].T
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
    first, second = (ours(histories, ours.items()) for histories in (one, other))
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


# --- BSARec, and what stands for an item


FEATURES = torch.from_numpy(np.random.default_rng(3).normal(size=(CYCLE, 5)).astype(np.float32))


def bsarec(**keys: object) -> BSARec:
    torch.manual_seed(0)
    params = BSARecParams.model_validate(settings().model_dump() | {"share": 0.6, "low": 2} | keys)
    return BSARec(CYCLE, params).eval()


@torch.no_grad()
def plain_bsarec(network: BSARec, window: list[int], heads: int) -> Tensor:
    """Return the scores after one whole window, place by place, frequency by frequency: the article's equations."""
    t, d = len(window), network.positions.embedding_dim
    table, first = network.items(), network.first
    x = torch.stack([table[item + 1] + network.positions.weight[t - 1 - i] for i, item in enumerate(window)])
    x = torch.stack([norm(v, first.weight, first.bias) for v in x])
    angle = 2 * math.pi * torch.arange(t)[:, None] * torch.arange(t)[None] / t
    for block in network.blocks:
        low = torch.zeros_like(x)
        for f in range(-block.filter.low + 1, block.filter.low):  # a real signal has each frequency and its negative
            c, s = angle[f % t].cos(), angle[f % t].sin()
            low += (c[:, None] * (c @ x) + s[:, None] * (s @ x)) / t
        mixed = x + low + block.filter.scale**2 * (x - low)
        mixed = torch.stack([norm(v, block.filter.norm.weight, block.filter.norm.bias) for v in mixed])
        attend, read = block.attend, []
        q, k, v = (part(x) for part in (attend.query, attend.key, attend.value))
        for i in range(t):
            allowed = [j for j in range(i + 1) if window[j] >= 0 or j == i]
            parts = []
            for h in range(heads):
                cut = slice(h * d // heads, (h + 1) * d // heads)
                scores = torch.stack([q[i, cut] @ k[j, cut] for j in allowed]) / math.sqrt(d // heads)
                parts.append(sum(p * v[j, cut] for j, p in zip(allowed, scores.softmax(0), strict=True)))
            read.append(norm(x[i] + attend.out(torch.cat(parts)), attend.norm.weight, attend.norm.bias))
        y = 0.6 * mixed + 0.4 * torch.stack(read)
        up, _, down, _ = block.feed
        inner = up(y)
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        x = torch.stack([norm(v, block.norm.weight, block.norm.bias) for v in y + down(inner)])
    return table[1:] @ x[-1]


def test_bsarec_is_its_equations() -> None:
    ours = bsarec(layers=2, heads=2)
    for window in ([3, 7, 1, 9, 0, 4], [-1, -1, 5, 2, 8, 6]):
        with torch.no_grad():
            scores = ours(torch.tensor([window]), ours.items())[0, -1] @ ours.items()[1:].T
        torch.testing.assert_close(scores, plain_bsarec(ours, window, 2), rtol=1e-4, atol=1e-5)


def test_bsarec_s_loss_is_cross_entropy_over_all_items_at_the_last() -> None:
    ours = bsarec()
    windows = [[-1, -1, -1, 2, 5, 7, 1], [0, 1, 2, 3, 4, 5, 6]]
    terms = [-plain_bsarec(ours, row[:-1], 2).log_softmax(0)[row[-1]] for row in windows]
    torch.testing.assert_close(ours.loss(torch.tensor(windows)), torch.stack(terms).mean(), rtol=1e-4, atol=1e-5)


def test_bsarec_ranks_a_history_the_same_whatever_stands_in_front_of_it() -> None:
    ours, seen = bsarec(), torch.zeros(1, CYCLE, dtype=torch.bool)
    whole = ours.rank(torch.tensor([[-1, -1, -1, -1, 4, 5]]), seen, CYCLE)
    assert torch.equal(ours.rank(torch.tensor([[4, 5]]), seen, CYCLE), whole)
    assert sorted(whole[0].tolist()) == list(range(CYCLE))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("reads", get_args(Reads))
def test_an_item_is_its_id_its_features_or_both(name: str, reads: Reads) -> None:
    kind = NETWORKS[name]
    torch.manual_seed(0)
    ours = kind(CYCLE, kind.Params.model_validate(settings().model_dump()), reads, FEATURES)
    rows = FEATURES - FEATURES.mean(0)
    content = rows / rows.norm(dim=1, keepdim=True)
    expected = torch.zeros(CYCLE, 16)
    if ours.items.ids is not None:
        expected = expected + ours.items.ids.weight[1:]
    if ours.items.project is not None:
        expected = expected + content @ ours.items.project.weight.T
    torch.testing.assert_close(ours.items()[1:], expected)
    assert not ours.items()[0].any()
    ours.loss(torch.tensor([[-1, 1, 2, 3], [4, 5, 6, 7]])).backward()
    learned = {name for name, p in ours.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    parts = {"ids": {"items.ids.weight"}, "features": {"items.project.weight"}}
    assert learned & {"items.ids.weight", "items.project.weight"} == set().union(
        *(parts[p] for p in reads.split(" + "))
    )


def test_features_that_are_read_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"ids \+ features: there are no features"):
        SASRec(CYCLE, settings(), "ids + features")


@pytest.mark.parametrize("reads", get_args(Reads))
def test_bsarec_learns_a_cycle(reads: Reads) -> None:
    params = BSARecParams.model_validate(settings().model_dump() | {"epochs": 12})
    fitted = fit(lambda: BSARec(CYCLE, params, reads, FEATURES), cycle(), params, 0.01, 0)
    again = fit(lambda: BSARec(CYCLE, params, reads, FEATURES), cycle(), params, 0.01, 0)
    assert fitted.history[fitted.best_epoch]["valid_ndcg@20"] > 0.8
    assert fitted.history == again.history
