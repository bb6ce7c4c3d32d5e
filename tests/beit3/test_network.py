"""The network's invariants, its batches, and equality with the authors' code."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, BEiT3Config
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.tokenizer import pad_rows

TINY = BEiT3Config(image=64, patch=16, vocab=100, width=48, layers=3, heads=4, ffn=192)
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


# --- padded batches, for every combination of modalities


LAYERED = BEiT3Config(image=64, patch=16, vocab=100, width=64, layers=3, heads=4, ffn=256, positions=66)
BASE = replace(BEIT3_CONFIGS["base"], layers=2, image=64, vocab=300, positions=130)
LENGTHS = {"one": [5], "of every kind": [9, 3, 3, 3, 3, 64, 2], "all the same": [7] * 5}


@cache
def randomised(shape: BEiT3Config) -> BEiT3:
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


def items(shape: BEiT3Config, lengths: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    images = torch.randn(len(lengths), 3, shape.image, shape.image)
    return images, [torch.randint(4, shape.vocab, (n,)) for n in lengths]


def one_by_one(whole: BEiT3, images: Tensor | None, texts: Sequence[Tensor] | None, n: int) -> Tensor:
    with torch.no_grad():
        actual = [
            whole.summary(None if images is None else images[i : i + 1], None if texts is None else texts[i][None])
            for i in range(n)
        ]
    return torch.cat(actual)


@torch.no_grad()
def padded_cls(whole: BEiT3, images: Tensor | None, texts: Sequence[Tensor] | None) -> Tensor:
    if texts is None:
        return whole.summary(images, None)
    tokens, padding = pad_rows([text.numpy() for text in texts])
    return whole.summary(images, torch.from_numpy(tokens), torch.from_numpy(padding))


@pytest.mark.parametrize("has", ["both", "image", "text"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_a_padded_batch_equals_the_network_item_by_item(lengths: list[int], has: str) -> None:
    whole = randomised(LAYERED)
    images, texts = items(LAYERED, lengths)
    image, text = (None if has == "text" else images), (None if has == "image" else texts)
    expected = one_by_one(whole, image, text, len(lengths))
    actual = padded_cls(whole, image, text)
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("has_image", [True, False])
def test_bfloat16_keeps_every_direction(has_image: bool) -> None:
    """Compares by cosine with float32 at the base width."""
    whole, lengths = randomised(BASE), [30, 2, 128, 64, 64, 5]
    images, texts = items(BASE, lengths)
    image = images if has_image else None
    expected = one_by_one(whole, image, texts, len(lengths))
    with torch.autocast("cpu", torch.bfloat16):
        actual = padded_cls(whole, image, texts)
    assert actual.dtype == torch.float32
    assert float(torch.cosine_similarity(actual, expected).min()) >= 0.999
    assert not torch.equal(actual, expected)


# --- torchscale 0.2.0, the authors' code (MIT licence), with equal weights at published sizes


def their_beit3(c: BEiT3Config) -> nn.Module:
    """Return their network in our shape; its names lack our prefix `beit3.`."""
    config, network = _torchscale()
    own = config(
        img_size=c.image, patch_size=c.patch, vocab_size=c.vocab, multiway=True, layernorm_embedding=False,
        normalize_output=True, no_output_layer=True, encoder_embed_dim=c.width, encoder_attention_heads=c.heads,
        encoder_ffn_embed_dim=c.ffn, encoder_layers=c.layers, max_source_positions=c.positions,
    )  # fmt: skip
    return network(own)


def _torchscale() -> tuple[Any, Any]:
    """Import torchscale without fairscale, which only sharded training needs."""
    if "fairscale" not in sys.modules:
        sharding = ModuleType("fairscale.nn")
        sharding.checkpoint_wrapper = sharding.wrap = None  # type: ignore[attr-defined]
        sys.modules |= {"fairscale": ModuleType("fairscale"), "fairscale.nn": sharding}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it imports timm by an old name
        from torchscale.architecture.config import EncoderConfig
        from torchscale.model.BEiT3 import BEiT3
    return EncoderConfig, BEiT3


TOKENS = 7
SMALL_INPUT = {"image": 32, "vocab": 500, "positions": 64}  # the depth and width are what is tested
SHAPES = {
    "base, 2 layers": replace(BEIT3_CONFIGS["base"], layers=2, **SMALL_INPUT),
    "large, 2 layers": replace(BEIT3_CONFIGS["large"], layers=2, **SMALL_INPUT),
    "base": replace(BEIT3_CONFIGS["base"], **SMALL_INPUT),
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
PASSES = {  # over image, tokens; with padding, patch mask
    "image": (True, False, False, False),
    "joint": (True, True, False, False),
    "joint, padded": (True, True, True, False),
    "joint, padded and masked": (True, True, True, True),
}
WATCHED = (
    "beit3.text_embed.weight",
    "beit3.vision_embed.cls_token",
    "beit3.vision_embed.proj.weight",
    "beit3.encoder.embed_positions.A.weight",
    "beit3.encoder.embed_positions.B.weight",
    "beit3.encoder.layers.0.self_attn.q_proj.A.weight",
    "beit3.encoder.layers.0.self_attn.k_proj.B.bias",
    "beit3.encoder.layers.0.self_attn.inner_attn_ln.A.weight",
    "beit3.encoder.layers.1.self_attn.v_proj.B.weight",
    "beit3.encoder.layers.1.ffn.A.fc1.weight",
    "beit3.encoder.layers.1.ffn.B.ffn_layernorm.bias",
    "beit3.encoder.layer_norm.A.weight",
)
"""first and last parameters of both experts, whose gradients are compared"""


@pytest.fixture
def unrounded_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the reference from rounding softmax and GELU to float32, which would exceed the tolerance of 1e-7."""
    softmax = F.softmax
    monkeypatch.setattr(F, "softmax", lambda x, dim, dtype: softmax(x, dim))
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x)


class Pair(NamedTuple):
    ours: BEiT3
    theirs: nn.Module
    dtype: torch.dtype


def randomise(network: nn.Module) -> None:
    """Randomise all parameters, including biases and scales."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = name.endswith("weight") and parameter.ndim == 1
            parameter.uniform_(-0.06, 0.06, generator=generator).add_(1.0 if scale else 0.0)


@pytest.fixture(
    scope="module",
    params=[(s, t) for s in SHAPES for t in TOLERANCE if (s, t) != ("base", torch.float32)],  # float64 says more
    ids=lambda p: f"{p[0]}, {str(p[1]).removeprefix('torch.')}",
)
def pair(request: pytest.FixtureRequest) -> Pair:
    shape, dtype = request.param
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            ours, theirs = BEiT3(SHAPES[shape]), their_beit3(SHAPES[shape])
        ours.to_empty(device="cpu")
    finally:
        torch.set_default_dtype(before)
    randomise(ours)
    # one set of values under both: at full depth two would take twice the memory
    weights = {name.removeprefix("beit3."): tensor.detach() for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(weights, strict=True, assign=True)
    return Pair(ours.eval(), theirs.eval(), dtype)


def both(pair: Pair, image: bool, tokens: bool, padding: bool, masked: bool) -> tuple[Tensor, Tensor]:
    """Return our and their outputs, [B, N, D], of the named pass."""
    c, generator = pair.ours.config, torch.Generator().manual_seed(5)
    lengths = torch.tensor([[TOKENS], [2]])
    x = torch.rand(2, 3, c.image, c.image, generator=generator, dtype=pair.dtype) * 2 - 1 if image else None
    ids = torch.randint(0, c.vocab, (2, TOKENS), generator=generator) if tokens else None
    hidden = torch.arange(TOKENS) >= lengths if padding else None
    mask = torch.rand(2, c.patches, generator=generator) < 0.5 if masked else None
    ours = pair.ours(x, ids, padding=hidden, patch_mask=mask).joined()
    return ours, pair.theirs(ids, x, text_padding_position=hidden, vision_masked_position=mask)["encoder_out"]


@pytest.mark.usefixtures("unrounded_reference")
@pytest.mark.parametrize("name", PASSES)
@torch.no_grad()
def test_a_pass_equals_theirs(pair: Pair, name: str) -> None:
    ours, theirs = both(pair, *PASSES[name])
    assert ours.shape == theirs.shape
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() < TOLERANCE[pair.dtype]


@pytest.mark.usefixtures("unrounded_reference")
def test_gradients_equal_theirs(pair: Pair) -> None:
    ours, theirs = both(pair, *PASSES["joint, padded and masked"])
    weight = torch.rand(ours.shape, generator=torch.Generator().manual_seed(6), dtype=pair.dtype)
    got = torch.autograd.grad((ours * weight).sum(), [pair.ours.get_parameter(name) for name in WATCHED])
    named = [pair.theirs.get_parameter(name.removeprefix("beit3.")) for name in WATCHED]
    expected = torch.autograd.grad((theirs * weight).sum(), named)
    for name, a, b in zip(WATCHED, got, expected, strict=True):
        size = float(b.abs().max())
        assert size > 1e-3, name
        assert (a - b).abs().max() < TOLERANCE[pair.dtype] * max(1.0, size), name


@pytest.mark.parametrize("size", ["base", "large"])
def test_names_and_shapes_are_theirs_at_full_size(size: str) -> None:
    with torch.device("meta"):
        ours, theirs = BEiT3(BEIT3_CONFIGS[size]).state_dict(), their_beit3(BEIT3_CONFIGS[size]).state_dict()
    assert {name: t.shape for name, t in ours.items()} == {f"beit3.{name}": t.shape for name, t in theirs.items()}
