"""Initial weights of pre-training: published files, or MiniLM's word embeddings.

Letters: V pieces, D width of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from alignrec.pipeline.beit3 import checkpoints
from alignrec.pipeline.beit3.config import SIZES, BEiT3Config
from alignrec.pipeline.beit3.mini import WORDS, load_minilm, load_tokenizer, minilm_ids
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import Pretrain
from alignrec.pipeline.images import decode
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.progress import meter
from alignrec.pipeline.sources.base import Download
from alignrec.pipeline.web.download import fetch_file

BATCH = 64  # images per forward pass of the visual tokenizer
WIDTH = 384  # width of MiniLM
WORD = "▁"  # prefix of SentencePiece pieces that begin a word
CONTINUED = "##"  # prefix of WordPiece tokens that continue a word
SPECIAL = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}

Obtain = Callable[
    [str, str | None], Path
]  # path or URL, and sha256, of a published file -> the local file


def make_obtain(layout: Layout, params: Download, progress: Callable[[], tqdm]) -> Obtain:
    def fetch_with_progress(address: str, target: Path) -> None:
        with progress() as bar:
            fetch_file(address, target, None, params.timeout, params.retries, meter(bar))

    return lambda address, sha256: checkpoints.obtain_file(
        address, layout.published, sha256, fetch_with_progress
    )


def read_start(params: Pretrain, obtain: Obtain, pieces: int) -> dict[str, Tensor]:
    """Read the tensors of `init`; UserError for other files, another size or tokenizer."""
    assert params.init is not None
    tensors = checkpoints.read_weights(obtain(params.init, params.init_sha256))
    shape = checkpoints.published_shape(tensors, params.init)
    checkpoints.continued_shape(SIZES[params.size], shape, 0, pieces, params.init)
    return tensors


def start_network(
    params: Pretrain, tensors: dict[str, Tensor], codes: int, pieces: int, positions: int
) -> tuple[BEiT3, list[str]]:
    assert params.init is not None
    wanted = replace(SIZES[params.size], positions=positions)
    shape = checkpoints.published_shape(tensors, params.init)
    beit3 = BEiT3(checkpoints.continued_shape(wanted, shape, codes, pieces, params.init))
    loaded = checkpoints.load_beit3(beit3, tensors, params.init)
    return beit3, [f"{n}: not used: {why}" for n, why in loaded.ignored.items()] + [
        f"{n}: new" for n in loaded.fresh
    ]


def predict_visual_tokens(
    params: Pretrain, obtain: Obtain, images: np.ndarray, shape: BEiT3Config, device: torch.device
) -> tuple[np.ndarray, int]:
    """Return the VQ-KD tokens of uint8 [n, S, S, 3], int32 [n, P], and the number of codes."""
    assert params.vqkd is not None
    path = obtain(params.vqkd, params.vqkd_sha256)
    tokenizer = checkpoints.load_vqkd(path, shape.grid)[0].to(device)
    out = np.empty((len(images), shape.patches), np.int32)
    for first in range(0, len(images), BATCH):
        batch = decode.normalise_pixels(np.array(images[first : first + BATCH])).to(device)
        out[first : first + BATCH] = tokenizer.tokens(batch).cpu().numpy()
    return out, tokenizer.config.codes


def initialise_words(network: BEiT3, pieces: Sequence[str]) -> str:
    """Initialise pieces with the mean MiniLM embedding of their text (arXiv 2402.09977); return a note on how many.

    They are scaled to the root mean square norm of the initial embeddings.
    """
    table = network.beit3.text_embed.weight
    ids = find_word_ids(pieces)
    known = torch.tensor([len(own) > 0 for own in ids])
    if known.any():
        starts = torch.tensor([0, *np.cumsum([len(own) for own in ids])[:-1]])
        means = F.embedding_bag(
            torch.tensor(list(chain(*ids))), load_minilm()[WORDS], starts, mode="mean"
        )  # [V, 384]
        # reduce to the width by PCA, or pad with zeros
        width, vectors = network.config.width, means[known]
        if width < WIDTH:
            centred = vectors.double() - vectors.double().mean(0)
            directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[
                :, :width
            ]  # most variance first
            largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
            vectors = (
                centred @ (directions * largest.sign())
            ).float()  # signs of eigenvectors are arbitrary
        else:
            vectors = F.pad(vectors, (0, width - WIDTH))
        scale = table.square().sum(1).mean().sqrt() / vectors.square().sum(1).mean().sqrt()
        with torch.no_grad():
            table[: len(pieces)][known] = vectors * scale
    return f"beit3.text_embed.weight: {int(known.sum()):,} of {len(pieces):,} pieces start as MiniLM's words"


def find_word_ids(pieces: Sequence[str]) -> list[list[int]]:
    """Return MiniLM's ids of the text of each piece, empty if unknown."""
    vocabulary = load_tokenizer().get_vocab()
    rows = minilm_ids([piece.replace(WORD, " ").strip() for piece in pieces])
    ids = [[token for token in row if token != vocabulary["[UNK]"]] for row in rows]
    for number, piece in enumerate(pieces):
        continued = CONTINUED + piece.lower()
        if piece in SPECIAL:
            ids[number] = [vocabulary[SPECIAL[piece]]]
        elif (
            piece.isalnum() and continued in vocabulary
        ):  # MiniLM never trained ## with punctuation
            ids[number] = [vocabulary[continued]]
    return ids
