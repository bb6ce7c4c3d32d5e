"""Inputs of `mini`: MiniLM's weights and word pieces, and image vectors of frozen encoders.

Letters: I items, P image tokens, W_p numbers of one, W of all, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import minilm
from alignrec.pipeline.beit3.config import MiniConfig
from alignrec.pipeline.beit3.mini import Mini, copy_minilm
from alignrec.pipeline.beit3.minilm import WordPieces, order_pieces
from alignrec.pipeline.encode.chunks import LONGEST
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.items.columns import Texts
from alignrec.pipeline.ops import linalg
from alignrec.pipeline.ops.linalg import Whitening
from alignrec.pipeline.pretrain.visual_tokens import train_kmeans

REDUCED, POWER = 128, 0.5  # components of PCA in an initial projection, and power of their deviation to divide by
LENGTH = 1.4  # initial root mean square norm of a projected image token, as of MiniLM's embeddings
FEW = 8  # least number of images per visual token
SAMPLE = 20_000  # images, at most, that projections and visual tokens are learned from
BLOCK = 4096  # images at a time


@dataclass(frozen=True)
class Images:
    """The vectors of all images."""

    vectors: np.ndarray  # float32 [I, W], a memory map, zero without image
    row: np.ndarray  # int64 [I], each item's own number; -1 without image
    widths: tuple[int, ...]  # W_p of each token; empty without images

    @property
    def items(self) -> np.ndarray:
        return np.flatnonzero(self.row >= 0)

    def tokens(self, items: np.ndarray) -> list[np.ndarray]:
        """Return the vectors of each image token: float32 [n, W_p] each."""
        return np.split(self.vectors[items], np.cumsum(self.widths)[:-1], axis=1)

    def sample(self, seed: int) -> np.ndarray:
        return np.sort(np.random.default_rng(seed).permutation(self.items)[:SAMPLE])


def read_word_pieces(layout: Layout, lines: Texts) -> tuple[WordPieces, int]:
    tokenizer, path = minilm.load().tokenizer, layout.encoder.word_pieces
    if not path.is_file():
        parts = (lines.slice(start, io.PART).to_pylist() for start in range(0, len(lines), io.PART))
        pieces, known = order_pieces(tokenizer, parts)
        io.write_json(path, {"pieces": pieces, "known": known})
    kept = io.read_json(path)
    return WordPieces(tokenizer, kept["pieces"]), int(kept["known"])


def fit_projections(images: Images, seed: int) -> list[Whitening]:
    seen = images.tokens(images.sample(seed)) if images.widths else []
    return [linalg.fit_pca(lambda x=x: [x], REDUCED, POWER) for x in seen]  # type: ignore[misc]


def assign_visual_tokens(images: Images, maps: Sequence[Whitening], most: int, seed: int) -> tuple[np.ndarray, int]:
    """Return the nearest centroid of each image token, int32 [I, P], and the number of all centroids."""
    out = np.zeros((len(images.row), len(images.widths)), np.int32)
    total = 0
    for p, own in enumerate(maps):
        sample = own.apply(images.tokens(images.sample(seed))[p])
        count = max(1, min(most, len(sample) // FEW))
        kmeans = train_kmeans(sample, count, seed)
        for start in range(0, len(images.items), BLOCK):
            some = images.items[start : start + BLOCK]
            nearest = kmeans.index.search(own.apply(images.tokens(some)[p]), 1)[1]
            out[some, p] = total + nearest[:, 0]
        total += count
    return out, total


def build_network(pieces: WordPieces, known: int, images: Images, maps: Sequence[Whitening], codes: int) -> Mini:
    made = Mini(MiniConfig(images.widths, pieces.vocab, positions=LONGEST, codes=codes, pieces=known))
    copy_minilm(made, minilm.load().tensors, pieces.theirs.tolist())
    with torch.no_grad():
        nn.init.normal_(made.image.mask_token, std=0.05)
        nn.init.normal_(made.image.positions, std=0.02)
        for p, own in enumerate(maps):
            project = made.image.projections[p]
            assert isinstance(project, nn.Linear)
            _start_projection(project, own, images.tokens(images.items[:BLOCK])[p])
        if made.mlm_head is not None:
            made.mlm_head.weight.copy_(made.text.words.weight[:known])
            made.mlm_head.bias.zero_()
    return made


def _start_projection(project: nn.Linear, own: Whitening, x: np.ndarray) -> None:
    """Initialise a projection with principal components, randomly rotated into D dimensions."""
    turned = torch.linalg.qr(torch.randn(project.out_features, own.map.shape[1])).Q  # [D, REDUCED]
    length = float(np.sqrt(np.square(own.apply(x)).sum(axis=1).mean()))
    map_: Tensor = turned @ torch.from_numpy(own.map.T) * (LENGTH / length if length else 0.0)  # [D, W_p]
    project.weight.copy_(map_)
    project.bias.copy_(-map_ @ torch.from_numpy(own.mean))
