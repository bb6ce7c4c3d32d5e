"""Visual tokens by k-means: of patches of pixels, and of a teacher's features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lessons import COLOURS, SIDE, ColourTeacher, agreement, png, store, striped
from torch import Tensor
from tqdm import tqdm

from pipeline.beit3.network import SIZES
from pipeline.errors import UserError
from pipeline.images.pixels import squares
from pipeline.layout import Layout
from pipeline.pretrain import prepare, visual_tokens
from pipeline.pretrain.params import Pretrain
from pipeline.pretrain.prepare import Lesson
from pipeline.pretrain.teacher import FeatureMaps, Teacher, feature_maps

SMALL = SIZES["small"]


def maps(layout: Layout, teacher: Teacher, grid: int = 6) -> FeatureMaps:
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    return feature_maps(lambda: teacher, layout.images, grid, layout.encoder_scratch, tqdm)


def codes(layout: Layout, pixels: np.ndarray, way: str, n: int = 8) -> np.ndarray:
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    tokenizer = {"vqkd_width": 64, "vqkd_layers": 1, "vqkd_epochs": 60}
    params = Pretrain.model_validate({"visual_tokens": way, "codes": n, "threads": 1, **tokenizer})
    lesson = Lesson(ColourTeacher) if params.taught else Lesson()
    tokens, there = prepare.codes(layout, pixels, SMALL, params, 3, torch.device("cpu"), lesson)
    assert tokens.dtype == np.int32
    assert 0 <= tokens.min() <= tokens.max() < there <= n
    return tokens


def test_images_that_look_alike_to_the_teacher_share_tokens(tmp_path: Path) -> None:
    pixels, colour = striped(64)
    stored = list(map(png, pixels))
    shared = {
        way: agreement(codes(store(tmp_path / way, stored, 40), pixels, way), colour)
        for way in ("kmeans", "teacher-kmeans", "teacher-vqkd")
    }
    assert shared["kmeans"] < 0.3, shared
    assert shared["teacher-kmeans"] > 0.6, shared
    assert shared["teacher-vqkd"] > 0.6, shared


@pytest.mark.parametrize("way", ["kmeans", "teacher-kmeans"])
def test_the_same_images_give_the_same_bytes(tmp_path: Path, way: str) -> None:
    pixels, _ = striped(12)
    one, two = (store(tmp_path / name, list(map(png, pixels)), 5) for name in ("one", "two"))
    assert (codes(one, pixels, way) == codes(two, pixels, way)).all()
    assert one.visual_tokens.read_bytes() == two.visual_tokens.read_bytes()
    assert (codes(one, pixels, way) == codes(two, pixels, way)).all()  # now from the file


def test_there_are_no_more_codes_than_different_patches(tmp_path: Path) -> None:
    pixels = COLOURS.astype(np.uint8)[:, None, None].repeat(SIDE, 1).repeat(SIDE, 2)
    layout = store(tmp_path, list(map(png, pixels)), 9)
    tokens = codes(layout, pixels, "teacher-kmeans", n=500)
    assert [len(np.unique(image)) for image in tokens] == [1] * 4
    assert len(np.unique(tokens)) == 4


def test_every_image_gets_the_features_of_the_one_that_is_stored(tmp_path: Path) -> None:
    """Some items have none, a whole file too; the teacher sees more pixels than the network does."""
    rng = np.random.default_rng(0)
    given = [None if i % 3 == 1 or i > 7 else png(rng.integers(0, 256, (70, 90, 3), np.uint8)) for i in range(12)]
    layout = store(tmp_path, given, 4)
    lesson = maps(layout, ColourTeacher(), 3)
    stored = [image for image in given if image]
    assert lesson.shape == (len(stored), 9, 4)
    features = ColourTeacher().feature_map(torch.from_numpy(squares(stored, SIDE)), 3).numpy()
    pooled = (
        features.reshape(len(stored), 4, 3, 4, 3, 4).mean(axis=(3, 5)).reshape(len(stored), 4, 9).transpose(0, 2, 1)
    )
    unit = pooled / np.linalg.norm(pooled, axis=2, keepdims=True)
    assert np.allclose(lesson.mean, unit.mean(axis=(0, 1)), atol=1e-3)
    centred = unit - unit.mean(axis=(0, 1))
    order = np.array([4, 0, 2, 2])
    expected = (centred / np.linalg.norm(centred, axis=2, keepdims=True))[order]
    assert np.allclose(lesson.rows(order), expected, atol=0.02)  # float16 on disk


def test_a_killed_lesson_goes_on_from_the_last_whole_part(tmp_path: Path) -> None:
    pixels, _ = striped(10)
    layout = store(tmp_path, list(map(png, pixels)), 4)
    first = ColourTeacher()
    whole = maps(layout, first).rows(np.arange(10))
    layout.encoder_scratch.joinpath("teacher-00001.npy").unlink()
    second = ColourTeacher()
    assert (maps(layout, second).rows(np.arange(10)) == whole).all()
    assert (first.shown, second.shown) == (10, 4)

    def load() -> Teacher:
        raise AssertionError("nothing is left to do")

    feature_maps(load, layout.images, 6, layout.encoder_scratch, tqdm)


def test_a_teacher_that_overflows_is_refused(tmp_path: Path) -> None:
    class Overflowing(ColourTeacher):
        def feature_map(self, pixels: Tensor, grid: int) -> Tensor:
            return super().feature_map(pixels, grid) * float("inf")

    pixels, _ = striped(2)
    layout = store(tmp_path, list(map(png, pixels)), 4)
    with pytest.raises(UserError, match=r"pretrain\.teacher: a feature of its map is not finite"):
        maps(layout, Overflowing())
    assert list(layout.encoder_scratch.iterdir()) == []


def test_usage_counts_codes_and_how_evenly_they_occur() -> None:
    assert visual_tokens.usage(np.array([[0, 1], [1, 0]]), 4) == {"codes": 4, "used": 2, "perplexity": 2}
    uneven = visual_tokens.usage(np.array([[0, 0, 0, 3]]), 4)
    assert uneven["perplexity"] == pytest.approx(4 / 3**0.75, abs=0.01)
    assert visual_tokens.usage(np.zeros((0, 36), np.int32), 0) == {"codes": 0, "used": 0, "perplexity": 1}
