"""The inference layout of the network has the outputs of the training layout, for every combination of modalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from alignrec.pipeline.beit3.config import SIZES, Config
from alignrec.pipeline.beit3.inference import Inference
from alignrec.pipeline.beit3.network import BEiT3

TINY = Config(image=64, patch=16, vocab=100, width=64, layers=3, heads=4, ffn=256, positions=66)
BASE = replace(SIZES["base"], layers=2, image=64, vocab=300, positions=130)
LENGTHS = {"one": [5], "of every kind": [9, 3, 3, 3, 3, 64, 2], "all the same": [7] * 5}


@cache
def network(shape: Config) -> BEiT3:
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
    whole = network(TINY)
    images, texts = items(TINY, lengths)
    image, text = (None if has == "text" else images), (None if has == "image" else texts)
    expected = one_by_one(whole, image, text, len(lengths))
    actual = Inference(whole, "float32").cls(
        image, None if text is None else torch.cat(text), [0] * len(lengths) if text is None else lengths
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("has_image", [True, False])
def test_bfloat16_keeps_every_direction(has_image: bool) -> None:
    """Compares by cosine with float32 at the base width."""
    whole, lengths = network(BASE), [30, 2, 128, 64, 64, 5]
    images, texts = items(BASE, lengths)
    image = images if has_image else None
    expected = one_by_one(whole, image, texts, len(lengths))
    actual = Inference(whole, "bfloat16").cls(image, torch.cat(texts), lengths)
    assert actual.dtype == torch.float32
    assert float(torch.cosine_similarity(actual, expected).min()) >= 0.999
    assert not torch.equal(actual, expected)
