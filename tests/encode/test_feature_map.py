"""Feature maps of encoders: the same network as for whole vectors, a vector for each part of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import networks
import numpy as np
import pytest
import torch

from pipeline.encode import feature_map
from pipeline.encode.base import Context
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.errors import UserError
from pipeline.features.sets import FeatureSets
from pipeline.images.pixels import normalised
from pipeline.layout import Layout
from pipeline.pretrain.teacher import Teacher

OTHERS = {
    "siglip": "huggingface",
    "clip": "huggingface",
    "dinov2": "huggingface",
    "timm": "timm",
    "open_clip": "open_clip",
}
LITE0 = [2, 4, 8, 16, 32]


def loaded(folder: Path, name: str) -> Any:
    encoders = {"mine": {"kind": OTHERS[name], "model": str(getattr(networks, name)(folder / name))}}
    return FeatureSets(Layout(Path("nowhere"), "toy"), Encode(), encoders).encoded("mine").load()


def quarters(side: int, *colours: int) -> torch.Tensor:
    """Return an image with one grey in each quarter, uint8 [1, S, S, 3]."""
    cells = np.array(colours, np.uint8).reshape(2, 2)
    return torch.from_numpy(cells.repeat(side // 2, 0).repeat(side // 2, 1)[None, :, :, None].repeat(3, 3))


@pytest.mark.parametrize("name", OTHERS)
def test_a_cell_shows_its_own_part_of_the_image(tmp_path: Path, name: str) -> None:
    teacher: Teacher = loaded(tmp_path, name)
    assert teacher.side == networks.SIDE
    image, other = (quarters(teacher.side, 250, last, 20, 20) for last in (20, 250))
    one, two = (teacher.feature_map(x, 2) for x in (image, other))
    assert (one.dtype, one.shape) == (torch.float32, (1, one.shape[1], 2, 2))
    changed = (one - two).norm(dim=1)[0]  # [2, 2]
    assert changed.argmax() == 1, changed  # upper right


def test_dinov2s_map_is_its_patch_tokens(tmp_path: Path) -> None:
    encoder = loaded(tmp_path, "dinov2")
    image = quarters(32, 0, 90, 180, 250)
    mean, sd = encoder._process.image_mean, encoder._process.image_std
    with torch.inference_mode():
        hidden = encoder._network(pixel_values=normalised(image, mean, sd)).last_hidden_state
    assert torch.allclose(encoder.feature_map(image, 2)[0, :, 1, 0], hidden[0, 3], atol=1e-6)  # CLS is token 0


def test_the_cnns_map_is_what_its_features_are_pooled_from() -> None:
    encoder = ENCODERS["cnn"].make(cast(Context, None), None)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8))
    coarse, fine = encoder.feature_map(image, 6), encoder.feature_map(image, 14)
    assert [x.shape[1:] for x in (coarse, fine)] == [(320, 7, 7), (112, 14, 14)]
    network = encoder._network
    with torch.inference_mode():
        pooled = network.bn2(network.conv_head(coarse)).mean(dim=(2, 3))
    assert torch.allclose(pooled, encoder.encode(image), atol=1e-4)


@pytest.mark.parametrize(("grid", "index"), [(1, 4), (6, 4), (7, 4), (8, 3), (14, 3), (15, 2), (112, 0), (500, 0)])
def test_the_coarsest_map_that_is_fine_enough_is_read(grid: int, index: int) -> None:
    assert feature_map.coarsest(LITE0, 224, grid) == index


def test_of_equal_maps_the_last_is_read() -> None:
    assert feature_map.coarsest([16] * 12, 224, 6) == 11


def test_tokens_before_the_images_are_left_out() -> None:
    hidden = torch.arange(9.0)[None, :, None]  # CLS, four registers, four patches
    assert feature_map.of_tokens(hidden, 4)[0, 0].tolist() == [[5, 6], [7, 8]]
    assert feature_map.of_tokens(hidden, 64).shape == (1, 1, 3, 3)  # merged: fewer tokens than patches
    with pytest.raises(UserError, match="5 tokens an image are no square map"):
        feature_map.of_tokens(hidden[:, :5], 64)
