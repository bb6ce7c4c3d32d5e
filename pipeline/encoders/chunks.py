"""Split long texts between words into chunks, whose vectors are averaged.

B texts, n chunks, W width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.encoders.params import MAX_UNKNOWN, MOST_CHUNKS
from alignrec.pipeline.linalg.device import move_to
from alignrec.pipeline.runtime.section import Positive, Section

# texts -> tokens of each, without truncation and special tokens, and how many are unknown
Count = Callable[[list[str]], list[tuple[int, int]]]
LONGEST = 256  # tokens, special ones included, that MiniLM was trained for
WORDS = re.compile(r"\s*\S+\s*")
# up to which a text is tokenised whole: some tokenizers take hours on one endless word
LETTERS_PER_TOKEN = 64
MAX_WORD_CHARACTERS = 256  # longer words are split
TEXTS_PER_COUNT = 256  # texts whose words are counted together


class Chunked(Section):
    """Settings shared by kinds that read long texts in chunks."""

    chunks: Positive = MOST_CHUNKS
    """maximum chunks per text, cut between words; their vectors are averaged, weighted by tokens"""


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


class Word(NamedTuple):
    """A word of a text, or a piece of a long one."""

    text: str
    tokens: int
    unknown: int  # tokens that stand for characters outside the vocabulary


class SplitText(NamedTuple):
    """A text split into parts that fit the network."""

    parts: list[Any]  # strings or arrays of ids
    tokens: list[int]  # tokens of each part
    there: int  # tokens of the whole text
    unknown: int  # tokens of the parts that stand for characters outside the vocabulary


class Splitter:
    """Base of encoders that split texts."""

    _split: dict[str, SplitText] | None = None  # texts of the last `reading`

    def split_texts(self, texts: Sequence[str]) -> list[SplitText]:
        raise NotImplementedError

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
    counts = count(short) if short else []
    for text, (tokens, unknown) in zip(short, counts, strict=True):
        if tokens <= room:
            split[text] = SplitText([text], [tokens], tokens, unknown)

    long = [text for text in texts if text not in split]
    for start in range(0, len(long), TEXTS_PER_COUNT):
        batch = long[start : start + TEXTS_PER_COUNT]
        words_of = _split_words(batch, count, room)
        for text, words in zip(batch, words_of, strict=True):
            split[text] = _pack_words(words, room, most)
    return [split[text] for text in texts]


def _pack_words(words: list[Word], room: int, most: int) -> SplitText:
    parts: list[list[Word]] = [[]]
    tokens = [0]
    for word in words:  # a loop, because parts depend on earlier ones
        if parts[-1] and tokens[-1] + word.tokens > room:
            parts.append([])
            tokens.append(0)
        parts[-1].append(word)
        tokens[-1] += word.tokens

    texts = []
    unknown = 0
    for part in parts[:most]:
        texts.append("".join(word.text for word in part))
        unknown += sum(word.unknown for word in part)
    return SplitText(texts, tokens[:most], sum(tokens), unknown)


def _split_words(texts: list[str], count: Count, room: int) -> list[list[Word]]:
    words_of = [_cut_words(text) for text in texts]
    distinct = list(dict.fromkeys(chain.from_iterable(words_of)))
    counts = dict(zip(distinct, count(distinct), strict=True))

    # halve words until each fits or is a single character
    while True:
        long = [word for word, (n, _) in counts.items() if n > room and len(word) > 1]
        if not long:
            break
        halves = {}
        for word in long:
            del counts[word]
            middle = len(word) // 2
            halves[word] = (word[:middle], word[middle:])
        pieces = dict.fromkeys(chain.from_iterable(halves.values()))
        new = [piece for piece in pieces if piece not in counts]
        counts |= dict(zip(new, count(new) if new else [], strict=True))
        words_of = [_replace_words(words, halves) for words in words_of]

    return [[Word(word, *counts[word]) for word in words] for words in words_of]


def _cut_words(text: str) -> list[str]:
    """Split a text into words with the spaces around them, of at most MAX_WORD_CHARACTERS."""
    pieces = []
    for word in WORDS.findall(text):
        starts = range(0, len(word), MAX_WORD_CHARACTERS)
        pieces += [word[start : start + MAX_WORD_CHARACTERS] for start in starts]
    return pieces


def _replace_words(words: list[str], halves: dict[str, tuple[str, str]]) -> list[str]:
    return list(chain.from_iterable(halves.get(word, (word,)) for word in words))
