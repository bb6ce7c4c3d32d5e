"""Split long texts between words into chunks, whose vectors are averaged (B texts, n chunks, W width)."""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignrec.pipeline.encode.params import MOST_CHUNKS
from alignrec.pipeline.harness.config import Positive, Section
from alignrec.pipeline.ops.device import move_to

Count = Callable[[list[str]], list[int]]  # texts -> token counts, without truncation and special tokens
LONGEST = 256  # tokens, special ones included, that MiniLM was trained for
WORD = re.compile(r"\s*\S+\s*")
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
    unknown: np.ndarray  # int64 [B], encoded tokens that stand for characters outside the vocabulary

    def facts(self) -> dict[str, float]:
        there = np.maximum(self.there, 1)
        known, unknown = (float((tokens / there).sum()) for tokens in (self.read - self.unknown, self.unknown))
        cut = int((self.read < self.there).sum())
        return {"items": len(there), "read": known, "cut": cut} | ({"unknown": unknown} if unknown else {})


class Chunks(NamedTuple):
    """Texts split into parts that fit the network."""

    parts: list[Any]  # n strings or arrays of ids, in text order
    owner: np.ndarray  # int64 [n], text of each part, ascending
    tokens: np.ndarray  # int64 [n], tokens of each part
    there: np.ndarray  # int64 [B], tokens of each whole text

    def reading(self, unknown: Sequence[int]) -> Reading:
        """Sum token counts per text; `unknown` has the unknown tokens of each part."""
        read, lost = (np.bincount(self.owner, of, len(self.there)).astype(np.int64) for of in (self.tokens, unknown))
        return Reading(read, self.there, lost)

    def groups(self) -> list[np.ndarray]:
        """Return the part numbers of each pass, int64: at most B parts of similar length."""
        order, size = self._order, len(self.there)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def average_parts(self, vectors: Sequence[Tensor]) -> Tensor:
        """Average the vectors of the groups, [<= B, W] each, per text, weighted by the tokens of its parts: [B, W]."""
        if len(self.parts) == len(self.there):
            return vectors[0]
        x = torch.cat(list(vectors))  # [n, W]
        weight = np.maximum(self.tokens, 1) / np.bincount(self.owner, np.maximum(self.tokens, 1))[self.owner]
        order = self._order
        scaled = x * move_to(torch.from_numpy(weight[order]), x.device).to(x.dtype)[:, None]
        owner = move_to(torch.from_numpy(self.owner[order]), x.device)
        return x.new_zeros(len(self.there), x.shape[1]).index_add_(0, owner, scaled)

    @property
    def _order(self) -> np.ndarray:
        uncut = len(self.parts) == len(self.there)
        return np.arange(len(self.parts)) if uncut else np.argsort(self.tokens, kind="stable")


def cut_texts(texts: Sequence[str], count: Count, room: int, most: int) -> Chunks:
    """Split nonempty texts into at most `most` parts of at most `room` tokens, between words where possible."""
    short = [number for number, text in enumerate(texts) if len(text) <= LETTERS * room]
    fits = dict(zip(short, count([texts[i] for i in short]) if short else [], strict=True))
    long = [number for number in range(len(texts)) if fits.get(number, room + 1) > room]
    of_long: dict[int, tuple[list[str], list[int]]] = {}
    for start in range(0, len(long), TOGETHER):
        some = long[start : start + TOGETHER]
        for i, (words, lengths) in zip(some, _split_words([texts[i] for i in some], count, room), strict=True):
            packed, sums = [list[str]()], [0]
            for word, n in zip(words, lengths, strict=True):  # a loop, because parts depend on earlier ones
                if packed[-1] and sums[-1] + n > room:
                    packed.append([])
                    sums.append(0)
                packed[-1].append(word)
                sums[-1] += n
            of_long[i] = ["".join(part) for part in packed], sums
    parts: list[str] = []
    owner, tokens, there = [], [], []
    for number, text in enumerate(texts):  # a loop, because texts differ in length
        own, lengths = of_long[number] if number in of_long else ([text], [fits[number]])
        there.append(sum(lengths))
        parts += own[:most]
        tokens += lengths[:most]
        owner += [number] * len(own[:most])
    return Chunks(parts, np.array(owner, np.int64), np.array(tokens, np.int64), np.array(there, np.int64))


def _split_words(texts: list[str], count: Count, room: int) -> list[tuple[list[str], list[int]]]:
    words = [
        [word[at : at + LONGEST_WORD] for word in WORD.findall(text) for at in range(0, len(word), LONGEST_WORD)]
        for text in texts
    ]
    distinct = list(dict.fromkeys(chain.from_iterable(words)))
    known = dict(zip(distinct, count(distinct), strict=True))
    # halve words until each fits or is a single character
    while long := [word for word, n in known.items() if n > room and len(word) > 1]:
        halves = {word: (word[: len(word) // 2], word[len(word) // 2 :]) for word in long}
        words = [[half for word in own for half in halves.get(word, (word,))] for own in words]
        new = list(dict.fromkeys(half for pair in halves.values() for half in pair if half not in known))
        known = {word: n for word, n in known.items() if word not in halves}
        known |= dict(zip(new, count(new) if new else [], strict=True))
    return [(own, [known[word] for word in own]) for own in words]
