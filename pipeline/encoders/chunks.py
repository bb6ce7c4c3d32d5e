"""Split long texts between words into chunks, whose vectors are averaged.

B texts, n chunks, W width.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.encoders.params import MAX_UNKNOWN
from alignrec.pipeline.linalg.device import move_to

# texts -> ids of each, without truncation and special tokens
Tokenize = Callable[[list[str]], list[list[int]]]
LONGEST = 256  # tokens, special ones included, that MiniLM was trained for
WORDS = re.compile(r"\s*\S+\s*")
# up to which a text is tokenised whole: some tokenizers take hours on one endless word
LETTERS_PER_TOKEN = 64
MAX_WORD_CHARACTERS = 256  # longer words are split
TEXTS_PER_COUNT = 256  # texts that are tokenised together
UP_TO_SPACE = re.compile(r".*\s", re.DOTALL)


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


def batch_texts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield texts that are tokenised together: tokens of all texts would fill memory."""
    for start in range(0, len(texts), TEXTS_PER_COUNT):
        yield list(texts[start : start + TEXTS_PER_COUNT])


def split_tokenized(tokenized: Tokenized, room: int, most: int) -> SplitText:
    """Split a text into at most `most` parts of at most `room` tokens, between words."""
    text, starts, is_unknown = tokenized
    n = len(starts)
    if n <= room:
        return SplitText([text], [n], n, int(is_unknown.sum()))

    parts: list[str] = []
    tokens: list[int] = []
    first = begin = 0  # token and character at which the next part begins
    while first < n and len(parts) < most:
        end = len(text)
        if first + room < n:
            end = _find_end(tokenized, begin, first, room)
        parts.append(text[begin:end])
        next_token = int(np.searchsorted(starts, end))
        tokens.append(next_token - first)
        first, begin = next_token, end
    return SplitText(parts, tokens, n, int(is_unknown[:first].sum()))


def _find_end(tokenized: Tokenized, begin: int, first: int, room: int) -> int:
    """Return where a part ends that `room` tokens from `first` fill: at its last word's end."""
    text, starts, _ = tokenized
    end = max(int(starts[first + room]), int(starts[first]) + 1)
    up_to_space = UP_TO_SPACE.match(text, begin, end)
    if text[end].isspace() or up_to_space is None or up_to_space.end() <= starts[first]:
        return end
    return up_to_space.end()


def locate_by_words(text: str, tokenize: Tokenize, unknown: int | None) -> Tokenized:
    """Locate the tokens of a text that is not tokenised whole: word by word.

    Tokens lie at equal distances in a word.
    """
    words = _cut_words(text)
    distinct = list(dict.fromkeys(words))
    ids_of = dict(zip(distinct, tokenize(distinct), strict=True))
    starts = [np.empty(0, np.int64)]
    begin = 0
    for word in words:
        n = len(ids_of[word])
        starts.append(begin + np.arange(n) * len(word) // max(n, 1))
        begin += len(word)
    is_unknown = [number == unknown for word in words for number in ids_of[word]]
    return Tokenized(text, np.concatenate(starts), np.array(is_unknown, bool))


def _cut_words(text: str) -> list[str]:
    """Split a text into words with the spaces around them, of at most MAX_WORD_CHARACTERS."""
    pieces = []
    for word in WORDS.findall(text):
        starts = range(0, len(word), MAX_WORD_CHARACTERS)
        pieces += [word[start : start + MAX_WORD_CHARACTERS] for start in starts]
    return pieces
