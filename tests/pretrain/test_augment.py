"""Augmentation: views show what they should, and their visual tokens are those of what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pretraining import digests, run, shop, task

from pipeline.pretrain import augment
from pipeline.pretrain.augment import Views
from pipeline.pretrain.batches import batch
from pipeline.pretrain.corpus import generators

ALL = ["crop", "flip", "colour"]
GRID, PATCH = 6, 9


def views(names: list[str], n: int = 400) -> Views:
    return augment.draw(names, generators(np.arange(n), 3))


def noise(n: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)


def test_without_a_name_an_image_and_its_tokens_stay() -> None:
    codes = np.arange(5 * 36).reshape(5, 36)
    seen = augment.images(noise(5), views([], 5))
    np.testing.assert_allclose(seen.numpy(), noise(5), atol=0.01)
    assert (augment.codes(codes, views([], 5)) == codes).all()


def test_half_of_the_images_are_mirrored_and_their_tokens_with_them() -> None:
    drawn, codes = views(["flip"]), np.tile(np.arange(9), (400, 1))
    assert 0.4 < drawn.mirrored.mean() < 0.6
    seen, tokens = augment.images(noise(400), drawn).numpy(), augment.codes(codes, drawn)
    for image, own, token, mirrored in zip(noise(400), seen, tokens, drawn.mirrored, strict=True):
        np.testing.assert_allclose(own, image[:, ::-1] if mirrored else image, atol=0.01)
        assert token.tolist() == ([2, 1, 0, 5, 4, 3, 8, 7, 6] if mirrored else list(range(9)))


def test_a_token_is_that_of_what_stands_in_the_middle_of_its_patch() -> None:
    """Images whose patches have one shade each, which is the token."""
    n = 200
    tokens = np.random.default_rng(1).integers(0, 256, (n, GRID**2))
    shades = tokens.reshape(n, GRID, GRID).repeat(PATCH, 1).repeat(PATCH, 2)
    drawn = views(["crop", "flip"], n)
    seen = augment.images(np.stack([shades] * 3, axis=3).astype(np.uint8), drawn)[..., 0].numpy()
    middle = seen[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].reshape(n, -1)  # [n, P]
    expected = augment.codes(tokens, drawn)
    rows, columns = (share * GRID % 1 for share in augment._centres(drawn, GRID))
    inside = ((abs(rows - 0.5) < 0.4)[:, :, None] & (abs(columns - 0.5) < 0.4)[:, None, :]).reshape(n, -1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(middle[inside], expected[inside], atol=0.01)  # at an edge two shades mix
    assert (expected != tokens).mean() > 0.5


def test_crops_lie_within_the_image_and_show_at_least_half_of_it() -> None:
    drawn = views(["crop"])
    assert (drawn.corner >= 0).all()
    assert (drawn.corner + drawn.extent <= 1 + 1e-12).all()
    area, ratio = drawn.extent.prod(axis=1), drawn.extent[:, 0] / drawn.extent[:, 1]
    assert 0.45 < area.min() < 0.6
    assert area.max() > 0.9
    assert 0.75 - 1e-9 <= ratio.min() < 0.85
    assert 1.2 < ratio.max() <= 4 / 3 + 1e-9


def test_colours_change_as_their_factors_say() -> None:
    whole = views([], 3)._replace(colour=np.array([[0.5, 1, 1], [1, 0, 1], [1, 1, 0]], np.float32))
    image = np.tile(np.array([[[200, 100, 0], [0, 0, 40]]], np.uint8), (3, 2, 1, 1))
    seen = augment.images(image, whole).numpy()[:, 0]
    grey = np.array([0.299 * 200 + 0.587 * 100, 0.114 * 40])
    np.testing.assert_allclose(seen[0], [[100, 50, 0], [0, 0, 20]], atol=0.01)
    np.testing.assert_allclose(seen[1], grey.mean(), atol=0.01)
    np.testing.assert_allclose(seen[2], grey[:, None].repeat(3, 1), atol=0.01)


def test_colours_change_by_at_most_two_fifths_and_stay_colours() -> None:
    drawn = views(["colour"])
    assert np.abs(drawn.colour - 1).max() <= 0.4
    assert np.abs(drawn.colour - 1).max(axis=0).min() > 0.35
    seen = augment.images(noise(400), drawn)
    assert float(seen.min()) >= 0
    assert float(seen.max()) <= 255
    assert (drawn.extent == 1).all()
    assert not drawn.mirrored.any()


def test_a_view_depends_on_the_item_and_the_seed_alone() -> None:
    toy = task(24, augment=ALL)
    whole = batch(toy, np.arange(12), toy.rates, 3, training=True)
    part = batch(toy, np.array([4, 9]), toy.rates, 3, training=True)
    assert torch.equal(part.inputs.image, whole.inputs.image[[4, 9]])
    assert torch.equal(part.codes, whole.codes[[4, 9]])
    other = batch(toy, np.arange(12), toy.rates, 4, training=True)
    assert not torch.equal(other.inputs.image, whole.inputs.image)


def test_masks_are_those_of_a_training_without_augmentation() -> None:
    plain, toy = task(24), task(24, augment=ALL)
    a, b = (batch(t, np.arange(12), t.rates, 3, training=True) for t in (plain, toy))
    assert torch.equal(a.patch_mask, b.patch_mask)
    assert torch.equal(a.piece_mask, b.piece_mask)
    assert not torch.equal(a.inputs.image, b.inputs.image)


def test_what_is_measured_and_encoded_is_the_image_itself() -> None:
    plain, toy = task(24), task(24, augment=ALL)
    a, b = (batch(t, np.arange(12), t.rates, 3) for t in (plain, toy))
    assert torch.equal(a.inputs.image, b.inputs.image)
    assert torch.equal(a.codes, b.codes)


def test_positives_of_the_collaborative_term_are_augmented_too() -> None:
    partners = np.arange(24)[:, None] ^ 1
    steps = [
        batch(t, np.arange(12), t.rates, 3, training=True)
        for t in (task(24, partners, augment=ALL), task(24, partners))
    ]
    images = [step.positives.inputs.image for step in steps if step.positives is not None]
    assert len(images) == 2
    assert not torch.equal(*images)
    assert torch.equal(images[0][1], steps[0].inputs.image[0]), "item 0 is the positive of item 1"


@pytest.mark.parametrize("name", ALL)
def test_each_name_is_another_training_and_the_same_one_each_time(tmp_path: Path, name: str) -> None:
    runs = {"a": [name], "b": [name], "plain": []}
    for folder, names in runs.items():
        shop(tmp_path / folder, augment=names, steps=3, batch_size=32)
        run(tmp_path / folder)
    weights = [digests(tmp_path / folder)["encoder.safetensors"] for folder in runs]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
