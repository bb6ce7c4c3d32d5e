"""BEiT3 `mini`: the multiway network that starts from MiniLM and EfficientNet-Lite0.

Each layer has two experts and one attention, as in network.py, but normalises as BERT does. The
experts of both streams start as the six layers of all-MiniLM-L6-v2 (minilm.py). Images are P
vectors of frozen image encoders (EfficientNet, descriptors), each projected to the width of the
network.

Letters: B batch, P image tokens, W_p width of image token p, T text tokens, N = P + T, D width, H
heads, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.config import MiniConfig
from alignrec.pipeline.beit3.network import BEiT3, Multiway, Streams, blank_table

NORM_EPSILON = 1e-12  # epsilon of every LayerNorm, as in BERT


class MiniAttention(nn.Module):
    """Multi-head attention over both streams; experts project."""

    def __init__(self, c: MiniConfig) -> None:
        super().__init__()
        self.heads = c.heads
        self.query = Multiway(lambda: nn.Linear(c.width, c.width))
        self.key = Multiway(lambda: nn.Linear(c.width, c.width))
        self.value = Multiway(lambda: nn.Linear(c.width, c.width))
        self.out = Multiway(lambda: nn.Linear(c.width, c.width))

    def forward(self, x: Streams, visible: Tensor | None) -> Streams:
        """Attend over all positions; `visible` is bool [B, 1, 1, N], False at masked keys."""
        q = self.query(x).split_heads(self.heads)  # [B, H, N, D/H]
        k = self.key(x).split_heads(self.heads)
        v = self.value(x).split_heads(self.heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # [B, H, N, D/H]
        return self.out(x.split(attended.transpose(1, 2).flatten(2)))  # [B, N, D]


class MiniLayer(nn.Module):
    """Attention and feed-forward network with residual connections and post-normalisation."""

    def __init__(self, c: MiniConfig) -> None:
        super().__init__()
        self.attention = MiniAttention(c)
        self.attention_norm = Multiway(lambda: nn.LayerNorm(c.width, NORM_EPSILON))
        self.up = Multiway(lambda: nn.Linear(c.width, c.ffn))
        self.down = Multiway(lambda: nn.Linear(c.ffn, c.width))
        self.norm = Multiway(lambda: nn.LayerNorm(c.width, NORM_EPSILON))

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
        self.norm = nn.LayerNorm(c.width, NORM_EPSILON)

    def forward(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """Embed images, [B, sum of W_p], with mask bool [B, P]: [B, P, D]; P may be 0."""
        if not self.widths:
            return image.new_zeros(len(image), 0, self.norm.weight.shape[0])

        vectors = image.split(self.widths, 1)
        pairs = zip(self.projections, vectors, strict=True)
        x = torch.stack([project(vector) for project, vector in pairs], 1)  # [B, P, D]
        if mask is not None:
            x = torch.where(mask.unsqueeze(2), self.mask_token.to(x.dtype), x)
        return self.norm(x + self.positions)


class TextEmbed(nn.Module):
    """Embeds ids and their positions, then normalises."""

    def __init__(self, c: MiniConfig) -> None:
        super().__init__()
        self.words = blank_table(c.vocab, c.width)
        self.positions = blank_table(c.positions, c.width)
        self.norm = nn.LayerNorm(c.width, NORM_EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.norm(self.words(tokens) + self.positions(places))


class Mini(nn.Module):
    """The network with its two pre-training heads."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config = config
        self.summary_width = 2 * config.width
        self.image = ImageEmbed(config)
        self.text = TextEmbed(config)
        self.layers = nn.ModuleList(MiniLayer(config) for _ in range(config.layers))
        self.mim_head = nn.Linear(config.width, config.codes) if config.codes else None
        self.mlm_head = nn.Linear(config.width, config.pieces) if config.pieces else None

    def forward(
        self,
        image: Tensor | None,
        tokens: Tensor | None,
        *,
        padding: Tensor | None = None,
        patch_mask: Tensor | None = None,
        no_image: Tensor | None = None,
    ) -> Streams:
        """Encode image vectors, float [B, sum of W_p], texts, or both; see `BEiT3.forward`."""
        vision = None if image is None else self.image(image, patch_mask)
        text = None if tokens is None else self.text(tokens)
        x = Streams(vision, text)

        visible = None
        if no_image is not None or padding is not None:
            no_vision = None if no_image is None else no_image[:, None]
            visible = _visible_keys(x, no_vision, padding)
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
        """Return the item feature, [B, 2 D].

        It is the means of the outputs at text and at image tokens, zero if absent.
        """
        streams = self(image, tokens, padding=padding, no_image=no_image)
        return self.pool_outputs(streams, padding, no_image)

    def pool_outputs(self, x: Streams, padding: Tensor | None, no_image: Tensor | None) -> Tensor:
        present = x.vision if x.text is None else x.text
        assert present is not None
        text = image = present.new_zeros(len(present), self.config.width)
        if x.text is not None:
            text = mean_visible(x.text, padding)
        if x.vision is not None and self.config.image_widths:
            hidden = None
            if no_image is not None:
                hidden = no_image[:, None].expand(-1, x.vision.shape[1])
            image = mean_visible(x.vision, hidden)
        return torch.cat([text, image], 1)


BEiT3OrMini = BEiT3 | Mini


def _visible_keys(x: Streams, no_vision: Tensor | None, no_text: Tensor | None) -> Tensor:
    """Return which keys to attend to, bool [B, 1, 1, N]; masks are bool [B, n], None for none."""
    hidden = []
    for stream, mask in zip(x, (no_vision, no_text), strict=True):
        if stream is None:
            continue
        if mask is None:
            hidden.append(torch.zeros_like(stream[..., 0], dtype=torch.bool))
        else:
            hidden.append(mask.expand(stream.shape[:2]))
    visible = ~torch.cat(hidden, 1)
    sees_none = ~visible.any(1, keepdim=True)
    return (visible | sees_none)[:, None, None, :]  # a row that sees none sees all: no NaN


def mean_visible(x: Tensor, hidden: Tensor | None) -> Tensor:
    """Average [B, n, D] over positions not hidden, bool [B, n]: [B, D]; zero if all are hidden."""
    if hidden is None:
        return x.mean(1)
    weight = (~hidden).unsqueeze(2).to(x.dtype)  # [B, n, 1]
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)
