"""Split long texts between words into chunks, whose vectors are averaged (B texts, n chunks, W width)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.encoders.params import MOST_CHUNKS
from alignrec.pipeline.linalg.device import move_to
from alignrec.pipeline.runtime.section import Positive, Section

# texts -> tokens of each text, without truncation and special tokens, and how many of them are unknown
Count = Callable[[list[str]], list[tuple[int, int]]]
Word = tuple[str, int, int]  # with its tokens and unknown tokens
LONGEST = 256  # tokens, special ones included, that MiniLM was trained for
WORDS = re.compile(r"\s*\S+\s*")
# characters per token up to which a text is tokenised whole: some tokenizers take hours on one endless word
LETTERS = 64
LONGEST_WORD = 256  # maximum characters of a word; longer ones are split
TOGETHER = 256  # texts whose words are counted together


class Chunked(Section):
    """Settings shared by kinds that read long texts in chunks."""

    chunks: Positive = MOST_CHUNKS
    """maximum chunks per text, cut between words; their vectors are averaged, weighted by tokens"""


class Reading(NamedTuple):
    """Token counts of B texts."""

    read: np.ndarray  # int64 [B], tokens that are encoded
    there: np.ndarray  # int64 [B], all tokens
    unknown: (
        np.ndarray
    )  # int64 [B], encoded tokens that stand for characters outside the vocabulary

    def facts(self) -> dict[str, float]:
        there = np.maximum(self.there, 1)
        known, unknown = (
            float((tokens / there).sum()) for tokens in (self.read - self.unknown, self.unknown)
        )
        cut = int((self.read < self.there).sum())
        return {"items": len(there), "read": known, "cut": cut} | (
            {"unknown": unknown} if unknown else {}
        )


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
        self._split = known = dict(zip(distinct, self.split_texts(distinct), strict=True))
        counts = [
            (sum(one.tokens), one.there, one.unknown) for one in map(known.__getitem__, texts)
        ]
        return Reading(*np.array(counts, np.int64).reshape(-1, 3).T)

    def chunks(self, texts: Sequence[str]) -> Chunks:
        """Return the parts of a batch of texts, which are split here unless `reading` did."""
        known = self._split or {}  # another thread may replace it
        split = (
            [known[text] for text in texts] if known.keys() >= {*texts} else self.split_texts(texts)
        )
        return Chunks(
            [part for one in split for part in one.parts],
            np.repeat(np.arange(len(split)), [len(one.parts) for one in split]),
            np.array([n for one in split for n in one.tokens], np.int64),
            len(split),
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
        """Average the vectors of the groups, [<= B, W] each, per text, weighted by the tokens of its parts: [B, W]."""
        if len(self.parts) == self.texts:
            return vectors[0]
        x = torch.cat(list(vectors))  # [n, W]
        weight = (
            np.maximum(self.tokens, 1)
            / np.bincount(self.owner, np.maximum(self.tokens, 1))[self.owner]
        )
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
    """Split nonempty texts into at most `most` parts of at most `room` tokens, between words where possible."""
    short = [text for text in texts if len(text) <= LETTERS * room]
    counted = zip(short, count(short) if short else [], strict=True)
    split = {
        text: SplitText([text], [n], n, unknown) for text, (n, unknown) in counted if n <= room
    }
    long = [text for text in texts if text not in split]
    for start in range(0, len(long), TOGETHER):
        some = long[start : start + TOGETHER]
        words = _split_words(some, count, room)
        split |= {text: _pack_words(own, room, most) for text, own in zip(some, words, strict=True)}
    return [split[text] for text in texts]


def _pack_words(words: list[Word], room: int, most: int) -> SplitText:
    parts, tokens = [list[Word]()], [0]
    for word, n, unknown in words:  # a loop, because parts depend on earlier ones
        if parts[-1] and tokens[-1] + n > room:
            parts.append([])
            tokens.append(0)
        parts[-1].append((word, n, unknown))
        tokens[-1] += n
    read = ["".join(word for word, *_ in part) for part in parts[:most]]
    return SplitText(
        read,
        tokens[:most],
        sum(tokens),
        sum(unknown for part in parts[:most] for *_, unknown in part),
    )


def _split_words(texts: list[str], count: Count, room: int) -> list[list[Word]]:
    words = [
        [
            word[at : at + LONGEST_WORD]
            for word in WORDS.findall(text)
            for at in range(0, len(word), LONGEST_WORD)
        ]
        for text in texts
    ]
    distinct = list(dict.fromkeys(chain.from_iterable(words)))
    known = dict(zip(distinct, count(distinct), strict=True))
    # halve words until each fits or is a single character
    while long := [word for word, (n, _) in known.items() if n > room and len(word) > 1]:
        halves = {word: (word[: len(word) // 2], word[len(word) // 2 :]) for word in long}
        words = [[half for word in own for half in halves.get(word, (word,))] for own in words]
        new = list(
            dict.fromkeys(half for pair in halves.values() for half in pair if half not in known)
        )
        known = {word: n for word, n in known.items() if word not in halves}
        known |= dict(zip(new, count(new) if new else [], strict=True))
    return [[(word, *known[word]) for word in own] for own in words]
