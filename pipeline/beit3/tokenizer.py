"""Text tokens: a SentencePiece model, and ids as the released BEiT3 numbers them (as XLM-RoBERTa).

The file's own ids 0, 1, 2 are <unk>, <s>, </s>; the network's are <s> 0, <pad> 1, </s> 2, <unk> 3,
then every other piece at its number plus one, and <mask> last.
"""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import sentencepiece

from alignrec.pipeline.io.errors import UserError

BOS = 0
PAD = 1
EOS = 2
UNK = 3
UNK_IN_FILE = 0

MAX_LINE_BYTES = 4192  # SentencePiece's own limit: longer lines would be skipped
MAX_BYTES_PER_CHARACTER = 4  # in UTF-8
MAX_TRAINING_LINES = 200_000  # bounds memory and time
MAX_ALPHABET = 1000  # characters; rarer ones are <unk>
ALPHABET_COVERAGE = 0.9995  # share of characters that a larger alphabet covers


class Tokenizer:
    """Text -> ids of a serialised SentencePiece model.

    UserError unless its first pieces are <unk>, <s>, </s>.
    """

    def __init__(self, model: bytes) -> None:
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(model)
            self._names = [self._pieces.IdToPiece(i) for i in range(len(self._pieces))]
        except (RuntimeError, UnicodeDecodeError):
            raise UserError("tokenizer: not a SentencePiece model") from None
        special = self._names[:3]
        if special != ["<unk>", "<s>", "</s>"]:
            raise UserError(f"tokenizer: its first pieces are {special}, expected <unk>, <s>, </s>")
        self.mask = len(self._pieces) + 1
        self.vocab = len(self._pieces) + 2

    @property
    def pieces(self) -> list[str]:
        return ["<s>", "<pad>", "</s>", "<unk>", *self._names[3:], "<mask>"]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return all ids of each text, int64, without <s> and </s>."""
        encoded = self._pieces.Encode(list(texts), out_type=int, num_threads=1)
        return [_renumber(np.asarray(ids, np.int64)) for ids in encoded]


def _renumber(ids: np.ndarray) -> np.ndarray:
    return np.where(ids == UNK_IN_FILE, UNK, ids + 1)


def train_model(texts: Iterable[str], vocab: int) -> bytes | None:
    """Train a unigram model of at most `vocab` ids and return it serialised; None without words."""
    lines = list(islice(_cut_lines(texts), MAX_TRAINING_LINES))
    if not lines:
        return None
    model = io.BytesIO()
    alphabet = len(set("".join(lines)) - {" "})
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=max(vocab - 2, min(alphabet, MAX_ALPHABET) + 8),
        hard_vocab_limit=False,
        character_coverage=1.0 if alphabet <= MAX_ALPHABET else ALPHABET_COVERAGE,
        max_sentence_length=MAX_LINE_BYTES,
        num_threads=1,  # for reproducible bytes
        minloglevel=2,
    )
    return model.getvalue()


def _cut_lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts, in parts that SentencePiece does not skip, without blank ones."""
    size = MAX_LINE_BYTES // MAX_BYTES_PER_CHARACTER
    for text in texts:
        for start in range(0, len(text), size):
            line = text[start : start + size].replace("\0", " ")
            if line.strip():
                yield line


def pad_rows(
    rows: Sequence[np.ndarray], length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids int64 [B, T] and padding bool [B, T], True after each text.

    T is `length` or that of the longest.
    """
    lengths = np.array([len(row) for row in rows])
    length = length or int(lengths.max())
    ids = np.full((len(rows), length), PAD, np.int64)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = values
    return ids, np.arange(length) >= lengths[:, None]


def split_text(ids: np.ndarray, max_tokens: int, max_parts: int) -> list[np.ndarray]:
    """Split ids, int64 [n], into at most `max_parts` equal parts; the rest is cut.

    Each has at most `max_tokens` ids, with <s> and </s>.
    """
    max_ids = max_tokens - 2
    ids = ids[: max_parts * max_ids]
    parts = np.array_split(ids, max(1, math.ceil(len(ids) / max_ids)))
    return [np.concatenate([[BOS], part, [EOS]]) for part in parts]
