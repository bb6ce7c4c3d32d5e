"""Invariants of the network; test_torchscale.py compares it with the reference."""

from __future__ import annotations

import pytest
import torch

from alignrec.pipeline.beit3.config import Config
from alignrec.pipeline.beit3.network import BEiT3

TINY = Config(image=64, patch=16, vocab=100, width=48, layers=3, heads=4, ffn=192)
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def network() -> BEiT3:
    torch.manual_seed(0)
    actual = BEiT3(TINY).double()
    with torch.no_grad():
        for parameter in actual.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return actual


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Four images, texts and their padding."""
    torch.manual_seed(1)
    padding = torch.arange(7) >= torch.tensor([[7], [5], [3], [2]])
    return torch.rand(4, 3, TINY.image, TINY.image).double() * 2 - 1, torch.randint(4, 100, (4, 7)), padding


@torch.no_grad()
def test_first_only_gives_the_same_cls(network: BEiT3, inputs: Inputs) -> None:
    image, tokens, padding = inputs
    for args in ((image, tokens, padding), (image, None, None), (None, tokens, padding)):
        whole = network(args[0], args[1], padding=args[2]).joined()[:, 0]
        torch.testing.assert_close(network.summary(*args), whole, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_hidden_modality_equals_an_absent_one(network: BEiT3, inputs: Inputs) -> None:
    image, tokens, padding = inputs
    no_image = torch.tensor([True, False, True, False])
    no_text = padding | torch.tensor([False, False, False, True])[:, None]
    mixed = network(image, tokens, padding=no_text, no_image=no_image, first_only=True).joined()[:, 0]
    expected = network.summary(image, tokens, padding)
    expected[no_image] = network.summary(None, tokens, padding)[no_image]
    expected[3] = network.summary(image, None)[3]
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)
    assert (mixed[0] - network.summary(image, tokens, padding)[0]).abs().max() > 0.1
