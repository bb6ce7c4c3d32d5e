"""Images and texts become what the released encoder reads."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from pipeline.beit3.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, pad, train
from pipeline.errors import UserError
from pipeline.images.pixels import normalised, squares
from pipeline.pretrain import visual_tokens

# A SentencePiece model, texts, and their ids by XLMRobertaTokenizer of transformers 4.48.3 (the last kind that runs
# SentencePiece itself, as BEiT3 uses it), with special tokens in a text taken as text.
ORACLE = Path(__file__).parents[1] / "oracles" / "xlmr_ids.npz"


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(ORACLE, allow_pickle=False) as file:
        return dict(file)


WORDS = ["red apple fruit", "green apple fruit", "blue car vehicle", "red car vehicle", "a bus"] * 8


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    model = train(WORDS, 40)
    assert model is not None
    return Tokenizer(model)


def test_ids_are_numbered_as_xlm_roberta_numbers_them(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode(["red apple"], 128)
    assert (ids[0], ids[-1]) == (BOS, EOS)
    assert (ids[1:-1] > UNK).all()
    assert ids.max() < tokenizer.mask == tokenizer.vocab - 1
    (unknown,) = tokenizer.encode(["☃"], 128)
    assert unknown[-2] == UNK


@pytest.mark.parametrize("text", ["", " \t\n", "é", "\0", "日本語 🙂 \ud7ff", "a" * 10_000, "word " * 10_000])
def test_any_text_gives_ids_within_the_limit(tokenizer: Tokenizer, text: str) -> None:
    (ids,) = tokenizer.encode([text], 16)
    assert 2 <= len(ids) <= 16
    assert (ids[0], ids[-1]) == (BOS, EOS)


@pytest.mark.parametrize("texts", [["x"], ["日本語"], ["ab" * 20_000], ["one two\0three"]])
def test_small_and_odd_corpora_train(texts: list[str]) -> None:
    model = train(texts, 2000)
    assert model is not None
    assert Tokenizer(model).encode(texts, 8)


def test_padding_marks_what_is_after_the_end() -> None:
    ids, padding = pad([np.array([0, 7, 2]), np.array([0, 2])])
    assert ids.tolist() == [[0, 7, 2], [0, 2, PAD]]
    assert padding.tolist() == [[False, False, False], [False, False, True]]


def test_another_file_is_refused() -> None:
    with pytest.raises(UserError, match="SentencePiece"):
        Tokenizer(b"no model")


def test_patches_are_cut_row_by_row() -> None:
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    pixels[0, 0:2, 2:4] = 255  # the second patch
    cut = visual_tokens.patches(pixels, 2)
    assert cut.shape == (1, 4, 12)
    assert [set(p) for p in cut[0]] == [{-1.0}, {1.0}, {-1.0}, {-1.0}]


def test_ids_equal_those_of_the_tokenizer_that_beit3_uses(oracle: dict[str, np.ndarray]) -> None:
    tokenizer = Tokenizer(oracle["spm"].tobytes())
    texts = json.loads(oracle["texts"].tobytes())
    expected = np.split(oracle["ids"], np.cumsum(oracle["lengths"])[:-1])
    actual = tokenizer.encode(texts, 10**6)
    assert len(texts) == len(expected) == 425
    assert [ids.tolist() for ids in actual] == [ids.tolist() for ids in expected]


def test_a_text_cannot_name_special_tokens(oracle: dict[str, np.ndarray]) -> None:
    """The reference turns them into the tokens; but texts come from strangers, and must not mask or end anything."""
    tokenizer = Tokenizer(oracle["spm"].tobytes())
    ids = tokenizer.encode(["cat <mask> </s> <pad> sat"], 99)[0][1:-1]
    assert not set(ids.tolist()) & {BOS, PAD, EOS, tokenizer.mask}


def png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (500, 300), (300, 500), (224, 224), (20, 900)])
def test_images_equal_the_official_evaluation_transform(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    official = transforms.Compose(
        [
            transforms.Resize((224, 224), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )
    ours = normalised(squares([png(values)], 224))
    assert torch.equal(ours[0], official(Image.fromarray(values)))
