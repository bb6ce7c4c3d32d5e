"""The BEiT3 network.

Source: "Image as a Foreign Language" (arXiv 2208.10442); backbone Magneto with sub-LayerNorm
(arXiv 2210.06423). Parameter names are those of the released checkpoints, so that their files load
by name.

Letters: B batch, S image side, P patches, T text tokens, N = 1 + P + T, D width, H heads, V
vocabulary.

Vision positions (CLS and patches) pass through the experts `A`, text positions through `B`, and all
attend to all. The streams are joined only inside attention, so that every matrix product reads
contiguous memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec.pipeline.beit3.config import FIRST_POSITION, BEiT3Config

HEADS = ("mim_head.", "mlm_head.")  # prefixes of parameters for masked modelling
INITIAL_SD = 0.02  # of weights, drawn from a normal truncated at twice that, as in BEiT


class Streams(NamedTuple):
    """Hidden states of the two modalities; either may be absent."""

    vision: Tensor | None  # [B, 1+P, D]
    text: Tensor | None  # [B, T, D]

    def map(self, a: Callable[[Tensor], Tensor], b: Callable[[Tensor], Tensor]) -> Streams:
        vision = None if self.vision is None else a(self.vision)
        text = None if self.text is None else b(self.text)
        return Streams(vision, text)

    def plus(self, other: Streams) -> Streams:
        return Streams(_add(self.vision, other.vision), _add(self.text, other.text))

    def joined(self) -> Tensor:
        present = [x for x in self if x is not None]
        return torch.cat(present, dim=1) if len(present) > 1 else present[0]  # [B, N, D]

    def split_heads(self, heads: int) -> Tensor:
        return self.joined().unflatten(2, (heads, -1)).transpose(1, 2)  # [B, H, N, D/H]

    def split(self, x: Tensor) -> Streams:
        if self.vision is None:
            return Streams(None, x)
        n = self.vision.shape[1]
        text = None if self.text is None else x[:, n:]
        return Streams(x[:, :n], text)

    def first(self) -> Streams:
        """Return CLS, [B, 1, D]."""
        assert self.vision is not None
        return Streams(self.vision[:, :1], None)


def _add(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return None if x is None or y is None else x + y


class Multiway(nn.Module):
    """A pair of equal modules: `A` for the vision stream, `B` for the text stream."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.A = make()
        self.B = make()

    def forward(self, x: Streams) -> Streams:
        return x.map(self.A, self.B)


class MultiwayAttention(nn.Module):
    """Multi-head attention over both streams.

    The experts project, and a LayerNorm precedes the output projection.
    """

    def __init__(self, c: BEiT3Config) -> None:
        super().__init__()
        self.heads = c.heads
        self.q_proj = Multiway(lambda: nn.Linear(c.width, c.width))
        self.k_proj = Multiway(lambda: nn.Linear(c.width, c.width))
        self.v_proj = Multiway(lambda: nn.Linear(c.width, c.width))
        self.inner_attn_ln = Multiway(lambda: nn.LayerNorm(c.width))
        self.out_proj = Multiway(lambda: nn.Linear(c.width, c.width))

    def forward(self, queries: Streams, x: Streams, visible: Tensor | None) -> Streams:
        """Attend from `queries` to `x`; `visible` is bool [B, 1, 1, N], False at masked keys."""
        q = self.q_proj(queries).split_heads(self.heads)  # [B, H, Q, D/H]
        k = self.k_proj(x).split_heads(self.heads)  # [B, H, N, D/H]
        v = self.v_proj(x).split_heads(self.heads)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # [B, H, Q, D/H]

        y = queries.split(attended.transpose(1, 2).flatten(2))  # [B, Q, D]
        return self.out_proj(self.inner_attn_ln(y))


class FeedForward(nn.Module):
    """Two linear layers with a LayerNorm between them."""

    def __init__(self, c: BEiT3Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(c.width, c.ffn)
        self.ffn_layernorm = nn.LayerNorm(c.ffn)
        self.fc2 = nn.Linear(c.ffn, c.width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        return self.fc2(self.ffn_layernorm(x))


class BEiT3Layer(nn.Module):
    """Attention and feed-forward network with pre-normalisation and residual connections."""

    def __init__(self, c: BEiT3Config) -> None:
        super().__init__()
        self.self_attn_layer_norm = Multiway(lambda: nn.LayerNorm(c.width))
        self.self_attn = MultiwayAttention(c)
        self.final_layer_norm = Multiway(lambda: nn.LayerNorm(c.width))
        self.ffn = Multiway(lambda: FeedForward(c))

    def forward(self, x: Streams, visible: Tensor | None, first_only: bool = False) -> Streams:
        y = self.self_attn_layer_norm(x)
        queries = y
        if first_only:
            x = x.first()
            queries = y.first()

        x = x.plus(self.self_attn(queries, y, visible))
        return x.plus(self.ffn(self.final_layer_norm(x)))


class VisionEmbed(nn.Module):
    """Embeds CLS and the patches of an image; a mask token replaces masked patches."""

    def __init__(self, c: BEiT3Config) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.proj = nn.Conv2d(3, c.width, c.patch, c.patch)

    def forward(self, image: Tensor | None, patch_mask: Tensor | None, batch: int) -> Tensor:
        """Embed images, [B, 3, S, S], with mask bool [B, P]: [B, 1+P, D]; only CLS without one."""
        cls = self.cls_token.expand(batch, -1, -1)  # [B, 1, D]
        if image is None:
            return cls

        x = self.proj(image).flatten(2).transpose(1, 2)  # [B, P, D]
        if patch_mask is not None:
            x = torch.where(patch_mask.unsqueeze(2), self.mask_token.to(x.dtype), x)
        return torch.cat([cls.to(x.dtype), x], dim=1)  # [B, 1+P, D]


def blank_table(count: int, width: int) -> nn.Embedding:
    """Return a table of zeros; torch's own initial draws would load its compiler."""
    return nn.Embedding.from_pretrained(torch.zeros(count, width), freeze=False)


class BEiT3Encoder(nn.Module):
    """Adds positions, then applies the layers and the final LayerNorm."""

    def __init__(self, c: BEiT3Config) -> None:
        super().__init__()
        self.embed_positions = Multiway(lambda: blank_table(c.positions, c.width))
        self.embed_positions.A = blank_table(FIRST_POSITION + 1 + c.patches, c.width)
        self.layers = nn.ModuleList(BEiT3Layer(c) for _ in range(c.layers))
        self.layer_norm = Multiway(lambda: nn.LayerNorm(c.width))

    def forward(self, x: Streams, hidden: Streams, first_only: bool) -> Streams:
        """Encode embedded streams; `hidden`, bool [B, 1+P] and [B, T], is True at masked ones."""
        table = self.embed_positions
        x = x.map(
            lambda vision: vision + table.A(_position_ids(vision)),
            lambda text: text + table.B(_position_ids(text)),
        )

        visible = None
        if hidden.vision is not None or hidden.text is not None:
            x = Streams(_zero_hidden(x.vision, hidden.vision), _zero_hidden(x.text, hidden.text))
            mask = Streams(_full_mask(x.vision, hidden.vision), _full_mask(x.text, hidden.text))
            visible = ~mask.joined()[:, None, None, :]  # [B, 1, 1, N]

        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, visible, first_only and number == last)
        return self.layer_norm(x)


class Backbone(nn.Module):
    """Embeddings and encoder, whose parameters released files store under `beit3.`."""

    def __init__(self, c: BEiT3Config) -> None:
        super().__init__()
        self.text_embed = blank_table(c.vocab, c.width)
        self.vision_embed = VisionEmbed(c)
        self.encoder = BEiT3Encoder(c)


class BEiT3(nn.Module):
    """The network with its two pre-training heads."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        self.config = config
        self.summary_width = config.width
        self.beit3 = Backbone(config)
        self.mim_head = nn.Linear(config.width, config.codes) if config.codes else None
        self.mlm_head = nn.Linear(config.width, config.vocab) if config.mlm else None
        self.apply(_initialise_weights)

    def forward(
        self,
        image: Tensor | None = None,
        tokens: Tensor | None = None,
        *,
        padding: Tensor | None = None,
        patch_mask: Tensor | None = None,
        no_image: Tensor | None = None,
        first_only: bool = False,
    ) -> Streams:
        """Encode images, texts or both; return the outputs of the final LayerNorm.

        Args:
            image: float [B, 3, S, S], normalised to [-1, 1].
            tokens: int64 [B, T].
            padding: bool [B, T], True after the end of a text, or throughout a row without text.
            patch_mask: bool [B, P], True where the mask token replaces the patch.
            no_image: bool [B], True where the image is absent, which hides its patches but not CLS.
            first_only: compute only CLS, [B, 1, D].
        """
        # unlike in the released code, CLS also precedes a text without image, so that all items
        # share one space
        present = image if image is not None else tokens
        if present is None:
            raise ValueError("neither image nor tokens")
        vision = self.beit3.vision_embed(image, patch_mask, len(present))  # [B, 1+P, D]
        text = None if tokens is None else self.beit3.text_embed(tokens)  # [B, T, D]

        hidden_patches = None
        if no_image is not None:
            hidden_patches = no_image[:, None].repeat(1, vision.shape[1])  # [B, 1+P]
            hidden_patches[:, 0] = False  # CLS stays visible
        hidden = Streams(hidden_patches, padding)
        return self.beit3.encoder(Streams(vision, text), hidden, first_only)

    def summary(
        self,
        image: Tensor | None,
        tokens: Tensor | None,
        padding: Tensor | None = None,
        no_image: Tensor | None = None,
    ) -> Tensor:
        """Return CLS, [B, D]; the arguments are those of `forward`."""
        streams = self(image, tokens, padding=padding, no_image=no_image, first_only=True)
        assert isinstance(streams.vision, Tensor)
        return streams.vision[:, 0]


def _position_ids(x: Tensor) -> Tensor:
    return torch.arange(FIRST_POSITION, FIRST_POSITION + x.shape[1], device=x.device)


def _zero_hidden(x: Tensor | None, hidden: Tensor | None) -> Tensor | None:
    if x is None or hidden is None:
        return x
    return x * (~hidden).unsqueeze(2).to(x.dtype)


def _full_mask(x: Tensor | None, hidden: Tensor | None) -> Tensor | None:
    """Return `hidden`, or a mask that hides nothing; None for an absent stream."""
    if x is None or hidden is not None:
        return hidden
    return torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)


def _initialise_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
        _draw_truncated(module.weight)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, VisionEmbed):
        _draw_truncated(module.cls_token)
        _draw_truncated(module.mask_token)


def _draw_truncated(x: Tensor) -> None:
    nn.init.trunc_normal_(x, std=INITIAL_SD, a=-2 * INITIAL_SD, b=2 * INITIAL_SD)
