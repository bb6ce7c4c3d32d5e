"""`alignrec.encoder` encodes images and texts as the pipeline does."""

import io
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pictures
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor

import alignrec
from alignrec import encoders
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import decode_squares, normalise_image


class Means:
    """An encoder with predictable vectors: mean colour, and length of the text."""

    width = 4

    def prepare(self, images: list[bytes] | None, texts: list[str] | None) -> Tensor:
        rows = len(images or texts or ())
        colour = decode_squares(images, 8).mean(axis=(1, 2)) if images else np.zeros((rows, 3))
        length = np.array([[len(text)] for text in texts]) if texts else np.zeros((rows, 1))
        return torch.from_numpy(np.hstack([colour, length])).float()

    def encode(self, prepared: Tensor) -> Tensor:
        return prepared


@pytest.fixture
def encoder() -> alignrec.Encoder:
    return alignrec.Encoder("means", Means(), ("image", "text"))


png = partial(pictures.plain, form="PNG")


def test_paths_bytes_and_pil_images_are_one_and_the_same(encoder: alignrec.Encoder, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    path = tmp_path / "red.png"
    images = [path, str(path), png("red"), Image.new("RGB", (40, 30), "red"), Image.open(path)]
    y = encoder.encode(images, ["word"] * 5)
    assert y.dtype == np.float32
    assert np.all(y == y[0])
    assert y[0] == pytest.approx([254, 0, 0, 4], abs=1.5)
    assert encoder.rejects == []


def test_absent_modalities_in_any_column(encoder: alignrec.Encoder) -> None:
    y = encoder.encode([None, png("blue"), None], ["four", None, ""])
    assert y[0].tolist() == [0, 0, 0, 4]
    assert y[1] == pytest.approx([0, 0, 254, 0], abs=1.5)
    assert not y[2].any(), "nothing to encode"
    assert np.array_equal(encoder.encode([None, png("blue"), None])[1], y[1])
    texts = ["four", None, "x"]
    for column in (pd.Series(texts, dtype=object), pa.chunked_array([texts]), np.array(texts, object), iter(texts)):
        assert encoder.encode(texts=column)[:, 3].tolist() == [4, 0, 1]


def test_what_an_encoder_does_not_read_is_hidden_from_it() -> None:
    blind = alignrec.Encoder("blind", Means(), ("text",))
    assert blind.encode([png("red")], ["four"])[0].tolist() == [0, 0, 0, 4]
    with pytest.raises(alignrec.UserError, match=r"^blind reads texts; none were given$"):
        blind.encode([png("red")])


def test_images_that_cannot_be_read_are_kept_and_counted(encoder: alignrec.Encoder, tmp_path: Path) -> None:
    whole = png("red")
    large = pictures.noise((64, 64), "PNG")
    (tmp_path / "large.png").write_bytes(large)
    cut = Image.open(io.BytesIO(large[: len(large) // 2]))
    images = [whole, tmp_path / "nowhere.png", b"no image", whole[: len(whole) // 2], Image.new("RGB", (3, 3)), cut]
    with pytest.warns(UserWarning, match=r"^5 of 6 images .* row 1: .*nowhere\.png: no such file"):
        y = encoder.encode(images, ["four"] * 6)
    assert [(r.row, r.status) for r in encoder.rejects] == [
        (1, "missing"), (2, "not_an_image"), (3, "truncated"), (4, "too_small"), (5, "truncated"),
    ]  # fmt: skip
    assert y[1:].tolist() == [[0, 0, 0, 4]] * 5
    with pytest.raises(alignrec.UserError, match=r"1 of 1 images cannot be read, first row 0: "):
        encoder.encode(["https://example.org/photo.jpg"])
    encoder.encode([whole])
    assert encoder.rejects == [], "of the last call"
    small = encoders.STORED.model_copy(update={"max_bytes": 5000})
    encoder = alignrec.Encoder("means", Means(), ("image", "text"), small)
    with pytest.warns(UserWarning, match="1 of 2 images cannot be read"):
        encoder.encode([tmp_path / "large.png", whole])
    assert [(r.row, r.status) for r in encoder.rejects] == [(0, "too_large")]


def test_a_row_that_is_no_image_or_text_is_refused_before_any_is_encoded(encoder: alignrec.Encoder) -> None:
    for images, texts, fault in (
        ([png("red"), 7], None, "images, row 1: int"),
        (None, ["a", b"b"], "texts, row 1: bytes"),
        ([None], ["a", "b"], "1 images and 2 texts"),
        ([], [], "no rows to encode"),
        (None, None, "means reads images and texts; none were given"),
        (None, "one text", "texts: str is no list"),
        (Path("photo.jpg"), None, "images: PosixPath is no list"),
    ):
        with pytest.raises(alignrec.UserError, match=f"^{fault}"):
            encoder.encode(images, texts)  # type: ignore[arg-type]


def test_the_bundled_encoder_gives_what_the_pipeline_gives() -> None:
    texts, colours = ["red apple", "a blue car with four doors", "bus"], ["red", "blue", "grey"]
    encoder = alignrec.encoder("minilm-cnn", max_tokens=5)
    y = encoder.encode([png(c) for c in colours], texts)
    spec = ENCODERS["minilm-cnn"]
    network = spec.load(None, spec.params(max_tokens=5))
    jpegs = [normalise_image(png(c), 256, 90, 10**8).image for c in colours]
    direct = batching.encode_items(network, texts, jpegs, 64)
    assert y.shape == (3, encoder.width) == (3, 384 + 1280)
    assert np.array_equal(y, direct.vectors)
    assert np.allclose(np.linalg.norm(y, axis=1), 2**0.5, atol=1e-5)
