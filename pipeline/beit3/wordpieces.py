"""Word pieces: MiniLM's tokenizer, its pieces numbered as BEiT3 numbers its own.

[CLS] is 0, [PAD] 1, [SEP] 2, [UNK] 3. Then come the pieces of a catalogue, so that MLM's head predicts the first
numbers only, then all others, and [MASK] last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pipeline.beit3.tokenizer import cut, with_ends
from pipeline.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")
MASK = "[MASK]"


class WordPieces:
    """Text -> ids of MiniLM's word pieces in one order."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str]) -> None:
        """Take MiniLM's tokenizer and all its pieces in order, see `order`; UserError if they are others."""
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        if sorted(pieces) != sorted(vocabulary) or (*pieces[: len(SPECIAL)], pieces[-1]) != (*SPECIAL, MASK):
            raise UserError("tokenizer: not the word pieces of MiniLM; run `alignrec pretrain` again")
        self.pieces = list(pieces)
        self.theirs = np.array([vocabulary[piece] for piece in pieces], np.int64)
        """MiniLM's number of each id"""
        self.vocab, self.mask = len(pieces), len(pieces) - 1
        self._ours = np.empty(len(pieces), np.int64)
        self._ours[self.theirs] = np.arange(len(pieces))
        self._tokenizer, self._lock = tokenizer, Lock()  # which cannot be used by two threads at once

    def encode(self, texts: Sequence[str], max_tokens: int) -> list[np.ndarray]:
        """Return ids of each text, int64 [<= max_tokens], between [CLS] and [SEP]; longer texts are cut."""
        with self._lock:
            encoded = (
                self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
            )
        return [cut(with_ends(self._ours[np.asarray(ids, np.int64)]), max_tokens) for ids in encoded]


def order(tokenizer: PreTrainedTokenizerBase, texts: Iterable[Sequence[str]]) -> tuple[list[str], int]:
    names = list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
    seen = np.zeros(len(names), bool)
    for part in texts:
        for ids in tokenizer(list(part), add_special_tokens=False, verbose=False)["input_ids"]:
            seen[ids] = True
    special = np.isin(names, [*SPECIAL, MASK])
    known, others = (np.flatnonzero(which & ~special) for which in (seen, ~seen))
    return [*SPECIAL, *(names[i] for i in [*known, *others]), MASK], len(SPECIAL) + len(known)
