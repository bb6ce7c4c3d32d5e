"""pretrain.image: the side of the images that the network sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretraining import digests, run, shop
from safetensors.numpy import load_file

from pipeline.errors import UserError
from pipeline.layout import Layout


def test_the_stage_trains_on_images_of_the_side_that_is_named(tmp_path: Path) -> None:
    for name, image in (("a", 16), ("b", 16), ("own", None)):
        shop(tmp_path / name, image=image, steps=10)
        run(tmp_path / name)
    layout = Layout(tmp_path / "a", "toy")
    assert json.loads(layout.encoder_config.read_text())["image"] == 16
    assert load_file(layout.encoder_weights)["beit3.encoder.embed_positions.A.weight"].shape == (3 + 4, 128)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert json.loads(Layout(tmp_path / "own", "toy").encoder_config.read_text())["image"] == 48


def test_a_side_that_patches_do_not_fill_ends_the_stage_at_once(tmp_path: Path) -> None:
    shop(tmp_path, image=50)
    with pytest.raises(UserError, match=r"'pretrain\.image': 50 pixels"):
        run(tmp_path)
    assert not Layout(tmp_path, "toy").tokenizer.exists()
