"""The visual tokenizer against figures of the reference implementation, and its invariants."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alignrec.pipeline.beit3 import checkpoints
from alignrec.pipeline.beit3.checkpoints import Loaded
from alignrec.pipeline.beit3.vqkd import VQKD, Config
from benchmarks import _official

# Encoder parameters, images, features and ids of BEiT v2's VQ-KD tokenizer in float32 on a tiny random case.
ORACLE = Path(__file__).parents[1] / "oracles" / "vqkd_tiny.npz"
HEADS = 4


@pytest.fixture(scope="module")
def oracle() -> dict[str, torch.Tensor]:
    with np.load(ORACLE, allow_pickle=False) as file:
        return {name: torch.from_numpy(values) for name, values in file.items()}


@pytest.fixture(scope="module")
def loaded(oracle: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> tuple[VQKD, Loaded]:
    """The tokenizer from a file as published, with decoder, teacher and statistics."""
    extra = ("decoder.cls_token", "decode_task_layer.0.bias", "teacher_model.proj")
    given = {name.removeprefix("param:"): x for name, x in oracle.items() if name.startswith("param:")}
    path = tmp_path_factory.mktemp("published") / "vqkd.pth"
    _official.save(given | {name: torch.ones(1) for name in extra}, path)
    return checkpoints.load_vqkd(path, 4, HEADS)


@pytest.fixture(scope="module")
def network(loaded: tuple[VQKD, Loaded]) -> VQKD:
    return loaded[0]


@pytest.fixture(scope="module")
def image(oracle: dict[str, torch.Tensor]) -> torch.Tensor:
    return oracle["image_0_1"] * 2 - 1  # as the encoder's preparation leaves it


@torch.no_grad()
def test_features_equal_the_reference(network: VQKD, oracle: dict[str, torch.Tensor], image: torch.Tensor) -> None:
    torch.testing.assert_close(network.encoder(image), oracle["encoder_patch_features"], rtol=0, atol=1e-5)
    torch.testing.assert_close(network(image), oracle["to_quantizer"], rtol=0, atol=1e-5)
    assert torch.equal(network.tokens(image), oracle["tokens"])


def test_nearest_is_by_direction_and_ties_go_to_the_first_code() -> None:
    network = VQKD(Config(image=2, patch=1, width=4, layers=0, heads=1, codes=4, code_width=2))
    with torch.no_grad():
        network.quantize.embedding.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]]))
    actual = network.quantize.nearest(torch.tensor([[0.01, 0.0], [100.0, 99.0], [-3.0, 1.0], [0.2, 5.0]]))
    assert actual.tolist() == [0, 0, 2, 1]
