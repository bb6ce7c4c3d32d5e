"""Text ids and visual tokens."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.beit3.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, pad, train
from pipeline.errors import UserError
from pipeline.pretrain import visual_tokens

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


def test_nothing_to_learn_from_gives_no_model() -> None:
    assert train(["", "  "], 40) is None
    assert train([], 40) is None


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
