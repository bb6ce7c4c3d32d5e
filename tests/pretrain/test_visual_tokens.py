"""Visual tokens by k-means of pixel patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alignrec.pipeline.beit3.config import SIZES
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.pretrain import prepare
from alignrec.pipeline.pretrain.params import Pretrain

SMALL = SIZES["small"]
COLOURS = np.array([(160, 100, 100), (100, 160, 100), (100, 100, 160), (150, 150, 80)], np.uint8)


def codes(layout: Layout, pixels: np.ndarray, n: int = 8) -> np.ndarray:
    tokens, there = prepare.read_codes(layout, pixels, SMALL, Pretrain(size="small", codes=n), 3)
    assert tokens.dtype == np.int32
    assert 0 <= tokens.min() <= tokens.max() < there <= n
    return tokens


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 48, 48, 3), np.uint8)
    one, two = Layout(tmp_path / "one", "toy"), Layout(tmp_path / "two", "toy")
    assert (codes(one, pixels) == codes(two, pixels)).all()
    assert one.visual_tokens.read_bytes() == two.visual_tokens.read_bytes()
    assert (codes(one, pixels) == codes(two, pixels)).all()  # now from the file


def test_there_are_no_more_codes_than_different_patches(tmp_path: Path) -> None:
    tokens = codes(Layout(tmp_path, "toy"), COLOURS[:, None, None].repeat(48, 1).repeat(48, 2), n=500)
    assert [len(np.unique(image)) for image in tokens] == [1] * 4
    assert len(np.unique(tokens)) == 4
