"""From items and pictures to all that pre-training starts from: tokenizer, visual tokens, pixels, a fresh network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from safetensors.numpy import load_file, save

from pipeline import corpus, io, tokens, visual_tokens
from pipeline.config import Pretrain
from pipeline.corpus import Corpus
from pipeline.encoders.beit3 import FIRST_POSITION, SIZES, BEiT3, Config
from pipeline.layout import Layout
from pipeline.pretrain import Task
from pipeline.seeds import seed_for

CENTROIDS = "centroids"
BLOCK = 4096  # pictures whose tokens are found at a time; bounds memory
NO_PIECES = 5  # vocabulary of a dataset without text: the special ids


def texts(layout: Layout, lines: Sequence[str], params: Pretrain, max_tokens: int) -> tuple[list[np.ndarray], int, int]:
    """Train the tokenizer on the dataset's own text, unless it is there, and read all texts with it.

    Returns:
        ids of each text, the vocabulary, the id of <mask>.
    """
    if not layout.tokenizer.is_file():
        model = tokens.train(lines, params.vocab)
        if model is None:
            return [np.array([tokens.BOS, tokens.EOS])] * len(lines), NO_PIECES, NO_PIECES - 1
        io.write_bytes(layout.tokenizer, model)
    tokenizer = tokens.Tokenizer(layout.tokenizer.read_bytes())
    return tokenizer.encode(lines, max_tokens), tokenizer.vocab, tokenizer.mask


def pictures(layout: Layout, shape: Config) -> tuple[np.ndarray, np.ndarray]:
    """Decode every picture once, into the scratch folder: row int64 [I] (-1: none), pixels uint8 [n, S, S, 3]."""
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    return corpus.decode(layout.images, shape.image, layout.encoder_scratch / "pictures.npy")


def codes(layout: Layout, pixels: np.ndarray, shape: Config, n: int, seed: int) -> tuple[np.ndarray, int]:
    """Learn the visual tokens, unless they are there, and give each patch its own.

    Returns:
        int32 [pictures, P], and how many tokens there are.
    """
    if not len(pixels):
        return np.zeros((0, shape.patches), np.int32), 0
    if not layout.visual_tokens.is_file():
        learned = visual_tokens.learn(pixels, shape.patch, n, seed)
        io.write_bytes(layout.visual_tokens, save({CENTROIDS: learned}))
    centroids = load_file(layout.visual_tokens)[CENTROIDS]
    parts = [
        visual_tokens.assign(pixels[start : start + BLOCK], shape.patch, centroids)
        for start in range(0, len(pixels), BLOCK)
    ]
    return np.concatenate(parts).astype(np.int32), len(centroids)


def everything(
    layout: Layout, lines: Sequence[str], params: Pretrain, seed: int, device: torch.device
) -> tuple[BEiT3, Task]:
    """Return a fresh network on the device, and the task that it is to learn.

    Args:
        layout: of the dataset; tokenizer and visual tokens are written there.
        lines: text of each item, in order.
        params: of pre-training.
        seed: of all that is drawn.
        device: to train on.
    """
    shape = SIZES[params.size]
    ids, vocab, mask_id = texts(layout, lines, params, shape.positions - FIRST_POSITION)
    row, pixels = pictures(layout, shape)
    tokens_of, n = codes(layout, pixels, shape, params.codes, seed_for(seed, "visual tokens"))
    torch.manual_seed(seed_for(seed, "network"))
    network = BEiT3(replace(shape, vocab=vocab, codes=n, mlm=True)).to(device)
    return network, Task(Corpus(ids, row, pixels), tokens_of, mask_id, params, seed, device)
