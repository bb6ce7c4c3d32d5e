"""Text tokens: a SentencePiece model, and ids as the released BEiT3 numbers them (those of XLM-RoBERTa).

The file's own ids 0, 1, 2 are <unk>, <s>, </s>; the network's are <s> 0, <pad> 1, </s> 2, <unk> 3, then every other
piece at its number plus one, and <mask> last.
"""

import io
import math
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import sentencepiece

from alignrec.pipeline.errors import UserError

BOS, PAD, EOS, UNK = 0, 1, 2, 3
LONGEST_SENTENCE = 4192  # bytes; SentencePiece's own limit: longer lines would be skipped
MOST_SENTENCES = 200_000  # lines that training reads; bounds memory and time
MOST_CHARACTERS = 1000  # of an alphabet; rarer characters are <unk>


class Tokenizer:
    """Text -> ids of one SentencePiece model."""

    def __init__(self, model: bytes) -> None:
        """Load a serialised model; UserError unless its first three pieces are <unk>, <s>, </s>."""
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(model)
            self._names = [self._pieces.IdToPiece(i) for i in range(len(self._pieces))]
        except (RuntimeError, UnicodeDecodeError):
            raise UserError("tokenizer: not a SentencePiece model") from None
        if (special := self._names[:3]) != ["<unk>", "<s>", "</s>"]:
            raise UserError(f"tokenizer: its first pieces are {special}, expected <unk>, <s>, </s>")
        self.mask = len(self._pieces) + 1
        self.vocab = len(self._pieces) + 2

    @property
    def pieces(self) -> list[str]:
        return ["<s>", "<pad>", "</s>", "<unk>", *self._names[3:], "<mask>"]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, int64, whole and without <s> and </s>."""
        encoded = self._pieces.Encode(list(texts), out_type=int, num_threads=1)
        return [np.where((own := np.asarray(ids, np.int64)) == 0, UNK, own + 1) for ids in encoded]


def train(texts: Iterable[str], vocab: int) -> bytes | None:
    """Train a unigram model on `texts` and return it serialised; None without words.

    One thread and lines in order give the same bytes each time; small texts give fewer pieces than `vocab`.
    """
    lines = list(islice((part for text in texts for part in _parts(text)), MOST_SENTENCES))
    if not lines:
        return None
    model = io.BytesIO()
    alphabet = len(set("".join(lines)) - {" "})
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=max(vocab - 2, min(alphabet, MOST_CHARACTERS) + 8),
        hard_vocab_limit=False,
        character_coverage=1.0 if alphabet <= MOST_CHARACTERS else 0.9995,
        max_sentence_length=LONGEST_SENTENCE,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def pad(rows: Sequence[np.ndarray], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return ids int64 [B, T] and padding bool [B, T], True after each text's end; T is the longest row or `length`."""
    length = length or max(len(row) for row in rows)
    ids = np.full((len(rows), length), PAD, np.int64)
    for row, values in enumerate(rows):  # a batch of short rows of unequal length
        ids[row, : len(values)] = values
    return ids, np.arange(length) >= np.array([len(row) for row in rows])[:, None]


def split_text(ids: np.ndarray, max_tokens: int, most: int) -> list[np.ndarray]:
    """Split a text's ids into parts of equal length, each between <s> and </s>; what `most` parts don't hold is cut.

    Args:
        ids: int64 [n], as `encode` returns them.
        max_tokens: of a part, with <s> and </s>.
    """
    room = max_tokens - 2
    read = ids[: most * room]
    parts = np.array_split(read, max(1, math.ceil(len(read) / room)))
    return [np.concatenate([[BOS], part, [EOS]]) for part in parts]


def _parts(text: str) -> list[str]:
    text = text.replace("\0", " ")
    if len(text) * 4 < LONGEST_SENTENCE:
        return [text] if text.strip() else []
    return [
        part
        for start in range(0, len(text), LONGEST_SENTENCE // 4)
        if (part := text[start : start + LONGEST_SENTENCE // 4]).strip()
    ]
