"""The network against numbers of the reference implementation, and against itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.beit3.config import SIZES, Config
from pipeline.beit3.network import BEiT3

# Parameters, inputs, outputs and gradients of torchscale 0.2.0 `BEiT3` in float64 on a tiny random case.
ORACLE = Path(__file__).parents[1] / "oracles" / "beit3_tiny.npz"
TINY = Config(image=64, patch=16, vocab=100, width=48, layers=3, heads=4, ffn=192)


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(ORACLE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def network(oracle: dict[str, np.ndarray]) -> BEiT3:
    network = BEiT3(TINY).double()
    weights = {k.removeprefix("param:"): torch.from_numpy(v) for k, v in oracle.items() if k.startswith("param:")}
    network.load_state_dict(weights, strict=True)
    return network


def inputs(oracle: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(oracle[k]) for k in ("image", "tokens", "padding", "patch_mask"))


def four_passes(network: BEiT3, oracle: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    image, tokens, padding, patch_mask = inputs(oracle)
    return {
        "joint": network(image, tokens, padding=padding).joined(),
        "joint_masked": network(image, tokens, padding=padding, patch_mask=patch_mask).joined(),
        "image_only": network(image).joined(),
        "text_only": network(tokens=tokens, padding=padding, cls=False).joined(),
    }


def test_parameter_names_and_shapes_are_the_published_ones(oracle: dict[str, np.ndarray]) -> None:
    published = {k.removeprefix("param:"): v.shape for k, v in oracle.items() if k.startswith("param:")}
    assert {k: tuple(v.shape) for k, v in BEiT3(TINY).state_dict().items()} == published


@pytest.mark.usefixtures("reference_rounding")
def test_all_four_passes_equal_the_reference(network: BEiT3, oracle: dict[str, np.ndarray]) -> None:
    for name, output in four_passes(network, oracle).items():
        np.testing.assert_allclose(output.detach().numpy(), oracle[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.usefixtures("reference_rounding")
def test_gradients_of_squared_cls_equal_the_reference(network: BEiT3, oracle: dict[str, np.ndarray]) -> None:
    image, tokens, padding, _ = inputs(oracle)
    network(image, tokens, padding=padding).joined()[:, 0].square().sum().backward()
    expected = {k.removeprefix("grad:"): v for k, v in oracle.items() if k.startswith("grad:")}
    assert len(expected) == 5
    for name, gradient in expected.items():
        ours = network.get_parameter(name).grad
        assert ours is not None
        np.testing.assert_allclose(ours.numpy(), gradient, rtol=0, atol=1e-9, err_msg=name)


@torch.no_grad()
def test_first_only_gives_the_same_cls(network: BEiT3, oracle: dict[str, np.ndarray]) -> None:
    image, tokens, padding, _ = inputs(oracle)
    for args in ((image, tokens, padding), (image, None, None), (None, tokens, padding)):
        whole = network(args[0], args[1], padding=args[2]).joined()[:, 0]
        torch.testing.assert_close(network.cls(*args), whole, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_batch_equals_its_items_one_by_one(network: BEiT3, oracle: dict[str, np.ndarray]) -> None:
    image, tokens, padding, _ = inputs(oracle)
    together = network.cls(image, tokens, padding)
    for row in range(len(image)):
        length = int((~padding[row]).sum())
        alone = network.cls(image[row : row + 1], tokens[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_hidden_modality_equals_an_absent_one(network: BEiT3, oracle: dict[str, np.ndarray]) -> None:
    image, tokens, padding, _ = inputs(oracle)
    no_image = torch.tensor([True, False, True, False])
    no_text = padding | torch.tensor([False, False, False, True])[:, None]
    mixed = network(image, tokens, padding=no_text, no_image=no_image, first_only=True).joined()[:, 0]
    expected = network.cls(image, tokens, padding)
    expected[no_image] = network.cls(None, tokens, padding)[no_image]
    expected[3] = network.cls(image, None)[3]
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)
    assert (mixed[0] - network.cls(image, tokens, padding)[0]).abs().max() > 0.1


def test_sizes_have_the_published_parameter_counts() -> None:
    """Millions listed beside the released files: with both heads, and for -itc with two D x D heads instead."""
    with torch.device("meta"):
        for name, with_heads, itc in (("base", 276, 222), ("large", 746, 674)):
            shape = replace(SIZES[name], codes=8192, mlm=True)
            assert sum(p.numel() for p in BEiT3(shape).parameters()) // 10**6 == with_heads
            bare = sum(p.numel() for p in BEiT3(SIZES[name]).parameters())
            assert (bare + 2 * shape.width**2) // 10**6 == itc
