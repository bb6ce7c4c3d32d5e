"""BEiT v2's VQ-KD tokenizer: image -> one discrete visual token per patch.

Source: "BEiT v2: Masked Image Modeling with Vector-Quantized Visual Tokenizers" (arXiv 2208.06366);
only the encoder, with the parameter names of the released checkpoints.

Letters: B batch, S image side, P patches, D width, H heads, C codes, E code width.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models import beit
from torch import Tensor, nn

NORM_EPSILON = 1e-6  # epsilon of every LayerNorm
HEAD_WIDTH = 64  # width of an attention head in released models


@dataclass(frozen=True)
class VQKDConfig:
    """Shape of a tokenizer; the defaults are the released ones."""

    image: int = 224  # image side, pixels
    patch: int = 16  # patch side, pixels
    width: int = 768
    layers: int = 12
    heads: int = 12
    codes: int = 8192  # entries of the codebook
    code_width: int = 32


class VQKDEncoder(nn.Module):
    """The vision transformer that encodes patches."""

    def __init__(self, c: VQKDConfig) -> None:
        super().__init__()
        patches = (c.image // c.patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, c.width))
        self.patch_embed = PatchEmbed(None, c.patch, embed_dim=c.width)
        norm: Any = partial(nn.LayerNorm, eps=NORM_EPSILON)
        self.blocks = nn.ModuleList(
            beit.Block(c.width, c.heads, qkv_bias=True, norm_layer=norm) for _ in range(c.layers)
        )
        self.fc_norm = nn.LayerNorm(c.width, eps=NORM_EPSILON)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patch_embed(image)  # [B, P, D]
        cls = self.cls_token.expand(len(patches), -1, -1)
        x = torch.cat([cls, patches], dim=1) + self.pos_embed  # [B, 1+P, D]
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x[:, 1:])  # [B, P, D]


class Codebook(nn.Module):
    """The codes, `quantize.embedding.weight` in released files."""

    def __init__(self, c: VQKDConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(c.codes, c.code_width)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the code nearest to each vector after normalisation: [..., E] -> int64 [...]."""
        codes = self.embedding.weight  # [C, E]
        z = F.normalize(x, dim=-1)
        # |z - c|^2 without the constant |z|^2
        distances = codes.square().sum(1) - 2 * (z @ codes.T)
        return distances.argmin(-1)


class VQKD(nn.Module):
    """The visual tokenizer: encoder, projection and codebook."""

    def __init__(self, config: VQKDConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = VQKDEncoder(config)
        self.encode_task_layer = nn.Sequential(
            nn.Linear(config.width, config.width),
            nn.Tanh(),
            nn.Linear(config.width, config.code_width),
        )
        self.quantize = Codebook(config)

    def forward(self, image: Tensor) -> Tensor:
        """Return the vectors to be quantised, float32 or float64 [B, P, E].

        Images are float [B, 3, S, S] in [-1, 1].
        """
        features = self.encoder(image)  # [B, P, D]
        # rounding could move a vector to another code
        with torch.autocast(image.device.type, enabled=False):
            return self.encode_task_layer(features.to(self.quantize.embedding.weight.dtype))

    @torch.no_grad()
    def tokens(self, image: Tensor) -> Tensor:
        """Return visual tokens, int64 [B, P], of float [B, 3, ., .] in [-1, 1] of any size."""
        side = self.config.image
        if image.shape[-2:] != (side, side):
            resized = F.interpolate(image, (side, side), mode="bicubic", antialias=True)
            image = resized.clamp(-1, 1)
        vectors = self(image)  # [B, P, E]
        with torch.autocast(image.device.type, enabled=False):
            return self.quantize.nearest(vectors)
