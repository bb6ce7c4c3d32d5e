"""The network at published sizes against torchscale 0.2.0, the authors' code (MIT licence), with equal weights."""

import sys
import warnings
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.config import SIZES, Config
from alignrec.pipeline.beit3.network import BEiT3


def their_beit3(c: Config) -> nn.Module:
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
    "base, 2 layers": replace(SIZES["base"], layers=2, **SMALL_INPUT),
    "large, 2 layers": replace(SIZES["large"], layers=2, **SMALL_INPUT),
    "base": replace(SIZES["base"], **SMALL_INPUT),
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
    params=[(shape, dtype) for shape in SHAPES for dtype in TOLERANCE],
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
        ours, theirs = BEiT3(SIZES[size]).state_dict(), their_beit3(SIZES[size]).state_dict()
    assert {name: t.shape for name, t in ours.items()} == {f"beit3.{name}": t.shape for name, t in theirs.items()}
