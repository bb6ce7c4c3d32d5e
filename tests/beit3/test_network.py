"""Invariants of the network, and its inference layout, which has the outputs of the training layout."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from alignrec.pipeline.beit3.config import SIZES, Config
from alignrec.pipeline.beit3.inference import Inference
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


# --- the inference layout, for every combination of modalities


LAYERED = Config(image=64, patch=16, vocab=100, width=64, layers=3, heads=4, ffn=256, positions=66)
BASE = replace(SIZES["base"], layers=2, image=64, vocab=300, positions=130)
LENGTHS = {"one": [5], "of every kind": [9, 3, 3, 3, 3, 64, 2], "all the same": [7] * 5}


@cache
def randomised(shape: Config) -> BEiT3:
    """A network whose norms and biases are random, too."""
    torch.manual_seed(0)
    actual = BEiT3(shape).eval()
    with torch.no_grad():
        for p in actual.parameters():
            p.add_(torch.randn_like(p), alpha=0.02)
        for norm in (m for m in actual.modules() if isinstance(m, torch.nn.LayerNorm)):
            norm.weight.uniform_(-1.5, 1.5)  # which none can leave out unseen
            norm.bias.normal_(std=0.3)
    return actual


def items(shape: Config, lengths: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    images = torch.randn(len(lengths), 3, shape.image, shape.image)
    return images, [torch.randint(4, shape.vocab, (n,)) for n in lengths]


def one_by_one(whole: BEiT3, images: Tensor | None, texts: Sequence[Tensor] | None, n: int) -> Tensor:
    with torch.no_grad():
        actual = [
            whole.summary(None if images is None else images[i : i + 1], None if texts is None else texts[i][None])
            for i in range(n)
        ]
    return torch.cat(actual)


@pytest.mark.parametrize("has", ["both", "image", "text"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_it_equals_the_network_item_by_item(lengths: list[int], has: str) -> None:
    whole = randomised(LAYERED)
    images, texts = items(LAYERED, lengths)
    image, text = (None if has == "text" else images), (None if has == "image" else texts)
    expected = one_by_one(whole, image, text, len(lengths))
    actual = Inference(whole, "float32").cls(
        image, None if text is None else torch.cat(text), [0] * len(lengths) if text is None else lengths
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("has_image", [True, False])
def test_bfloat16_keeps_every_direction(has_image: bool) -> None:
    """Compares by cosine with float32 at the base width."""
    whole, lengths = randomised(BASE), [30, 2, 128, 64, 64, 5]
    images, texts = items(BASE, lengths)
    image = images if has_image else None
    expected = one_by_one(whole, image, texts, len(lengths))
    actual = Inference(whole, "bfloat16").cls(image, torch.cat(texts), lengths)
    assert actual.dtype == torch.float32
    assert float(torch.cosine_similarity(actual, expected).min()) >= 0.999
    assert not torch.equal(actual, expected)
