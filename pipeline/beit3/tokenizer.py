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

from alignrec.pipeline.io.errors import UserError

BOS, PAD, EOS, UNK = 0, 1, 2, 3
LONGEST_SENTENCE = 4192  # bytes; SentencePiece's own limit: longer lines would be skipped
MOST_SENTENCES = 200_000  # lines that training reads; bounds memory and time
MOST_CHARACTERS = 1000  # maximum size of the alphabet; rarer characters are <unk>


class Tokenizer:
    """Text -> ids of a serialised SentencePiece model; UserError unless its first pieces are <unk>, <s>, </s>."""

    def __init__(self, model: bytes) -> None:
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
        """Return all ids of each text, int64, without <s> and </s>."""
        encoded = self._pieces.Encode(list(texts), out_type=int, num_threads=1)
        return [np.where((own := np.asarray(ids, np.int64)) == 0, UNK, own + 1) for ids in encoded]


def train_model(texts: Iterable[str], vocab: int) -> bytes | None:
    """Train a unigram model of at most `vocab` ids and return it serialised; None without words."""
    size = LONGEST_SENTENCE // 4  # characters, each of at most four bytes
    plain = (text.replace("\0", " ") for text in texts)
    parts = (text[start : start + size] for text in plain for start in range(0, len(text), size))
    lines = list(islice(filter(str.strip, parts), MOST_SENTENCES))
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
        num_threads=1,  # for reproducible bytes
        minloglevel=2,
    )
    return model.getvalue()


def pad_rows(
    rows: Sequence[np.ndarray], length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids int64 [B, T] and padding bool [B, T], True after each text; T is `length` or that of the longest."""
    length = length or max(len(row) for row in rows)
    ids = np.full((len(rows), length), PAD, np.int64)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = values
    return ids, np.arange(length) >= np.array([len(row) for row in rows])[:, None]


def split_text(ids: np.ndarray, max_tokens: int, most: int) -> list[np.ndarray]:
    """Split ids, int64 [n], into at most `most` equal parts of `max_tokens` with <s> and </s>; the rest is cut."""
    room = max_tokens - 2
    read = ids[: most * room]
    parts = np.array_split(read, max(1, math.ceil(len(read) / room)))
    return [np.concatenate([[BOS], part, [EOS]]) for part in parts]
