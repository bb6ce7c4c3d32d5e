"""Split long texts between words into chunks, whose vectors are averaged.

B texts, n chunks, W width.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.encoders.params import MAX_UNKNOWN
from alignrec.pipeline.linalg.device import move_to

# texts -> tokens of each, without truncation and special tokens, and how many are unknown
Count = Callable[[list[str]], list[tuple[int, int]]]
LONGEST = 256  # tokens, special ones included, that MiniLM was trained for
WORDS = re.compile(r"\s*\S+\s*")
# up to which a text is tokenised whole: some tokenizers take hours on one endless word
LETTERS_PER_TOKEN = 64
MAX_WORD_CHARACTERS = 256  # longer words are split
TEXTS_PER_COUNT = 256  # texts that are tokenised together
MAX_REMEMBERED_WORDS = 200_000  # whose counts a split keeps


class Reading(NamedTuple):
    """Token counts of B texts."""

    read: np.ndarray  # int64 [B], tokens that are encoded
    there: np.ndarray  # int64 [B], all tokens
    unknown: np.ndarray  # int64 [B], encoded tokens for characters outside the vocabulary

    def facts(self) -> dict[str, float]:
        all_tokens = np.maximum(self.there, 1)
        facts = {
            "items": len(all_tokens),
            "read": float(((self.read - self.unknown) / all_tokens).sum()),
            "cut": int((self.read < self.there).sum()),
        }
        unknown = self.unknown / all_tokens
        if unknown.any():
            facts["unknown"] = float(unknown.sum())
            facts["unread"] = int((unknown > MAX_UNKNOWN).sum())
        return facts


class Tokenized(NamedTuple):
    """A text and its n tokens."""

    text: str
    starts: np.ndarray  # int64 [n], position of each token's first character, ascending
    is_unknown: np.ndarray  # bool [n], whether it stands for characters outside the vocabulary


class SplitText(NamedTuple):
    """A text split into parts that fit the network."""

    parts: list[Any]  # strings or arrays of ids
    tokens: list[int]  # tokens of each part
    there: int  # tokens of the whole text
    unknown: int  # tokens of the parts that stand for characters outside the vocabulary


class Splitter(ABC):
    """Base of encoders that split texts."""

    _split: dict[str, SplitText] | None = None  # texts of the last `reading`

    @abstractmethod
    def split_texts(self, texts: Sequence[str]) -> list[SplitText]:
        """Return each text in parts that fit the network."""

    def reading(self, texts: Sequence[str]) -> Reading | None:
        """Count the tokens of each text, and remember its parts for the batches to come."""
        distinct = list(dict.fromkeys(texts))
        split = dict(zip(distinct, self.split_texts(distinct), strict=True))
        self._split = split
        splits = [split[text] for text in texts]
        counts = [(sum(text.tokens), text.there, text.unknown) for text in splits]
        return Reading(*np.array(counts, np.int64).reshape(-1, 3).T)

    def chunks(self, texts: Sequence[str]) -> Chunks:
        """Return the parts of a batch of texts, which are split here unless `reading` did."""
        remembered = self._split or {}  # another thread may replace it
        if not remembered.keys() >= {*texts}:
            remembered = dict(zip(texts, self.split_texts(texts), strict=True))
        split = [remembered[text] for text in texts]
        n_parts = [len(text.parts) for text in split]
        return Chunks(
            parts=list(chain.from_iterable(text.parts for text in split)),
            owner=np.repeat(np.arange(len(split)), n_parts),
            tokens=np.array([n for text in split for n in text.tokens], np.int64),
            texts=len(split),
        )


class Chunks(NamedTuple):
    """Parts of the texts of a batch."""

    parts: list[Any]  # n strings or arrays of ids, in text order
    owner: np.ndarray  # int64 [n], text of each part, ascending
    tokens: np.ndarray  # int64 [n], tokens of each part
    texts: int  # B

    def groups(self) -> list[np.ndarray]:
        """Return the part numbers of each pass, int64: at most B parts of similar length."""
        order, size = self._order, self.texts
        return [order[start : start + size] for start in range(0, len(order), size)]

    def average_parts(self, vectors: Sequence[Tensor]) -> Tensor:
        """Average the vectors of the groups, [<= B, W] each, per text: [B, W].

        Parts are weighted by their tokens.
        """
        if len(self.parts) == self.texts:
            return vectors[0]

        x = torch.cat(list(vectors))  # [n, W]
        tokens = np.maximum(self.tokens, 1)
        weight = tokens / np.bincount(self.owner, tokens)[self.owner]

        order = self._order
        scaled = x * move_to(torch.from_numpy(weight[order]), x.device).to(x.dtype)[:, None]
        owner = move_to(torch.from_numpy(self.owner[order]), x.device)
        return x.new_zeros(self.texts, x.shape[1]).index_add_(0, owner, scaled)

    @property
    def _order(self) -> np.ndarray:
        unsplit = len(self.parts) == self.texts
        return np.arange(self.texts) if unsplit else np.argsort(self.tokens, kind="stable")


def split_between_words(
    texts: Sequence[str], count: Count, room: int, most: int
) -> list[SplitText]:
    """Split nonempty texts into at most `most` parts of at most `room` tokens.

    Texts are cut between words where possible.
    """
    split: dict[str, SplitText] = {}
    short = [text for text in texts if len(text) <= LETTERS_PER_TOKEN * room]
    for batch in batch_texts(short):
        for text, (tokens, unknown) in zip(batch, count(batch), strict=True):
            if tokens <= room:
                split[text] = SplitText([text], [tokens], tokens, unknown)

    long = [text for text in texts if text not in split]
    known: dict[str, tuple[int, int]] = {}
    for batch in batch_texts(long):
        if len(known) > MAX_REMEMBERED_WORDS:
            known.clear()
        words_of = _count_words(batch, count, room, known)
        n_words = [words.shape[1] for words in words_of]
        parts = _pack_words(batch, np.hstack(words_of), n_words, room, most)
        split |= zip(batch, parts, strict=True)
    return [split[text] for text in texts]


def batch_texts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield texts that are tokenised together: tokens of all texts would fill memory."""
    for start in range(0, len(texts), TEXTS_PER_COUNT):
        yield list(texts[start : start + TEXTS_PER_COUNT])


def split_tokenized(
    texts: Sequence[Tokenized], count: Count, room: int, most: int
) -> list[SplitText]:
    """Split texts like `split_between_words`, where words alone have the same tokens."""
    words_of = [WORDS.findall(tokenized.text) for tokenized in texts]
    words = list(chain.from_iterable(words_of))
    counts = _count_tokens_of(words, texts)
    lengths, tokens, _ = counts

    overlong = np.flatnonzero((lengths > MAX_WORD_CHARACTERS) | ((tokens > room) & (lengths > 1)))
    known = {words[i]: (int(counts[1, i]), int(counts[2, i])) for i in overlong}
    pieces = dict(zip(known, _count_words([*known], count, room, known.copy()), strict=True))
    columns = []
    start = 0
    n_pieces = np.ones(len(words), np.int64)
    for i in overlong.tolist():
        columns += [counts[:, start:i], pieces[words[i]]]
        n_pieces[i] = columns[-1].shape[1]
        start = i + 1
    columns.append(counts[:, start:])

    ends = np.cumsum([len(words) for words in words_of])
    n_words = np.diff(np.cumsum(n_pieces)[ends - 1], prepend=0).tolist()
    return _pack_words([text for text, *_ in texts], np.hstack(columns), n_words, room, most)


def _count_tokens_of(words: list[str], texts: Sequence[Tokenized]) -> np.ndarray:
    """Return the characters, tokens and unknown tokens of the words of texts, int64 [3, w]."""
    starts = []
    begin = 0
    for tokenized in texts:
        starts.append(tokenized.starts + begin)
        begin += len(tokenized.text)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    tokens = np.searchsorted(np.concatenate(starts), np.cumsum(lengths))  # up to each word's end

    is_unknown = np.concatenate([tokenized.is_unknown for tokenized in texts])
    unknown = np.concatenate([[0], np.cumsum(is_unknown)])[tokens]
    return np.stack([lengths, np.diff(tokens, prepend=0), np.diff(unknown, prepend=0)])


def _pack_words(
    texts: Sequence[str], words: np.ndarray, n_words: Sequence[int], room: int, most: int
) -> list[SplitText]:
    """Put as many words as fit into each part of each text.

    Args:
        texts: B texts.
        words: Characters, tokens and unknown tokens of their words in order, int64 [3, w].
        n_words: Words of each text.
        room: Tokens per part at most, unless it is one word.
        most: Parts per text at most.
    """
    before = np.concatenate([np.zeros((3, 1), np.int64), np.cumsum(words, axis=1)], axis=1)
    characters, tokens, unknown = before.tolist()  # before each word, and after the last

    split = []
    first = 0
    for text, n in zip(texts, n_words, strict=True):
        end = first + n
        begin = characters[first]
        parts: list[str] = []
        n_tokens: list[int] = []
        word = first
        while word < end and len(parts) < most:
            fits = bisect_right(tokens, tokens[word] + room, word, end + 1) - 1
            next_word = max(word + 1, fits)
            parts.append(text[characters[word] - begin : characters[next_word] - begin])
            n_tokens.append(tokens[next_word] - tokens[word])
            word = next_word
        n_unknown = unknown[word] - unknown[first]
        split.append(SplitText(parts, n_tokens, tokens[end] - tokens[first], n_unknown))
        first = end
    return split


def _count_words(
    texts: list[str], count: Count, room: int, known: dict[str, tuple[int, int]]
) -> list[np.ndarray]:
    """Split texts into words.

    Args:
        texts: Nonempty texts.
        count: Counts tokens.
        room: Tokens beyond which words are split further.
        known: Counts of words; those of new ones are added.

    Returns:
        For each text, the words' characters, tokens, and unknown tokens, int64 [3, w].
    """
    words_of = [_cut_words(text) for text in texts]
    while True:
        distinct = dict.fromkeys(chain.from_iterable(words_of))
        new = [word for word in distinct if word not in known]
        if new:
            known.update(zip(new, count(new), strict=True))

        # halve words until each fits or is a single character
        halves = {}
        for word in distinct:
            if known[word][0] > room and len(word) > 1:
                middle = len(word) // 2
                halves[word] = (word[:middle], word[middle:])
        if not halves:
            break
        words_of = [_replace_words(words, halves) for words in words_of]

    counts = []
    for words in words_of:
        columns = [(len(word), *known[word]) for word in words]
        counts.append(np.array(columns, np.int64).reshape(-1, 3).T)
    return counts


def _cut_words(text: str) -> list[str]:
    """Split a text into words with the spaces around them, of at most MAX_WORD_CHARACTERS."""
    pieces = []
    for word in WORDS.findall(text):
        starts = range(0, len(word), MAX_WORD_CHARACTERS)
        pieces += [word[start : start + MAX_WORD_CHARACTERS] for start in starts]
    return pieces


def _replace_words(words: list[str], halves: dict[str, tuple[str, str]]) -> list[str]:
    return list(chain.from_iterable(halves.get(word, (word,)) for word in words))
