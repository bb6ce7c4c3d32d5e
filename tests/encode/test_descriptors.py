"""Classical descriptors: what each part distinguishes, and independence of batches."""

import io

import networks
import numpy as np
import pytest
from PIL import Image, ImageDraw

from alignrec.pipeline.encode.descriptors import CELLS, LEVELS, SIDE, Descriptors, describe_images

COLOURS, SILHOUETTE = slice(0, LEVELS**3), slice(LEVELS**3, LEVELS**3 + CELLS**2)
GRADIENTS = slice(LEVELS**3 + CELLS**2, Descriptors.width)


def drawn(colour: str, box: tuple[int, int, int, int], background: str = "white") -> np.ndarray:
    image = Image.new("RGB", (SIDE, SIDE), background)
    ImageDraw.Draw(image).rectangle(box, fill=colour)
    return np.asarray(image)


WIDE, TALL = (8, 36, 87, 59), (36, 8, 59, 87)


def test_each_part_tells_what_the_others_do_not() -> None:
    x = describe_images(np.stack([drawn("red", WIDE), drawn("blue", WIDE), drawn("red", TALL)]))
    same_shape, same_colour = x[0] * x[1], x[0] * x[2]
    assert same_colour[COLOURS].sum() == pytest.approx(1, abs=1e-5)
    assert same_shape[SILHOUETTE].sum() == pytest.approx(1, abs=1e-5)
    assert same_shape[COLOURS].sum() < 0.9
    assert same_colour[SILHOUETTE].sum() < 0.5
    assert same_colour[GRADIENTS].sum() < 0.9
    np.testing.assert_allclose(
        [np.linalg.norm(x[:, part], axis=1) for part in (COLOURS, SILHOUETTE, GRADIENTS)], 1, rtol=1e-5
    )


def test_a_batch_equals_single_images_and_a_plain_one_is_finite() -> None:
    encoder = Descriptors()
    images = [
        networks.jpeg(colour, size) for colour, size in (("red", (40, 30)), ("grey", (1, 1)), ("blue", (300, 900)))
    ]
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)).save(noise, "JPEG")
    images.append(noise.getvalue())
    vectors = encoder.encode(encoder.prepare(images, None)).numpy()
    single = np.concatenate([encoder.encode(encoder.prepare([one], None)).numpy() for one in images])
    assert vectors.shape == (4, encoder.width)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors, single)
