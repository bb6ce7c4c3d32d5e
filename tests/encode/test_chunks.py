"""Long texts are encoded in chunks: all words once, in order; short texts are unchanged."""

from __future__ import annotations

import pytest
import torch

from alignrec.pipeline.encode.chunks import LONGEST_WORD, cut_texts
from alignrec.pipeline.encode.huggingface import HuggingFace
from alignrec.pipeline.encode.minilm import MiniLMParams, load_minilm


def letters(texts: list[str]) -> list[int]:
    """Count a token per four letters, as for a tokenizer whose vocabulary has no word."""
    return [sum(-(-len(word) // 4) for word in text.split()) for text in texts]


def test_a_text_that_fits_stays_as_it_is() -> None:
    chunks = cut_texts(["  one two ", "three"], letters, 3, 9)
    assert chunks.parts == ["  one two ", "three"]
    vectors = torch.arange(4.0).reshape(2, 2)
    assert chunks.average_parts([vectors]) is vectors


@pytest.mark.parametrize("room", [1, 2, 5, 50])
def test_a_longer_text_is_cut_between_words_and_nothing_is_lost(room: int) -> None:
    texts = ["red apple", "a blue car with four doors " * 9, "x" * 1000, "tail"]
    chunks = cut_texts(texts, letters, room, 10_000)
    for number, text in enumerate(texts):
        own = [part for part, owner in zip(chunks.parts, chunks.owner, strict=True) if owner == number]
        assert "".join(own) == text
    assert letters(chunks.parts) == chunks.tokens.tolist()
    assert max(chunks.tokens) <= room
    read, there, _ = chunks.reading([0] * len(chunks.parts))
    assert (read == there).all()
    if room > 1:  # so that no word of these is cut
        assert there[[0, 1, 3]].tolist() == letters([texts[0], texts[1], texts[3]])


def test_what_comes_after_the_last_chunk_is_not_read_and_counted() -> None:
    chunks = cut_texts(["aa bb cc dd ee", "aa"], letters, 2, 2)
    assert chunks.parts == ["aa bb ", "cc dd ", "aa"]
    assert [x.tolist() for x in chunks.reading([0, 0, 0])] == [[4, 1], [5, 1], [0, 0]]
    assert chunks.reading([0, 0, 0]).facts() == {"items": 2, "read": 1.8, "cut": 1}
    assert chunks.reading([1, 0, 1]).facts() == {"items": 2, "read": 0.6, "cut": 1, "unknown": 1.2}


def test_vectors_are_averaged_by_tokens_whatever_their_order() -> None:
    chunks = cut_texts(["aa bb cc", "dd"], letters, 2, 9)
    seen: list[str] = []

    def make(texts: list[str]) -> torch.Tensor:
        seen.extend(texts)
        return torch.tensor([[float(ord(text[0]))] for text in texts])

    a, b, c, d = (float(ord(letter)) for letter in "abcd")
    assert b == a + 1
    assert chunks.average_parts(chunks.make_inputs(make)).tolist() == [[pytest.approx((2 * a + c) / 3)], [d]]
    assert sorted(seen) == ["aa bb ", "cc", "dd"]


def test_a_text_of_megabytes_is_not_tokenised_whole() -> None:
    longest = 0

    def count(texts: list[str]) -> list[int]:
        nonlocal longest
        longest = max(longest, *map(len, texts))
        return letters(texts)

    cut_texts(["y" * 1_000_000], count, 100, 3)
    assert longest <= LONGEST_WORD


@pytest.fixture(scope="module")
def minilm() -> HuggingFace:
    return load_minilm(None, MiniLMParams())
