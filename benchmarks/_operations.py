"""The operations of BEiT3's stages, computed from shapes: what docs/regenerate-baby.md's hours follow from.

Letters: I items, N positions of an item, D width, F feed-forward width, P patches, T tokens, C codes, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.beit3 import vqkd
from pipeline.beit3.config import SIZES, Config
from pipeline.beit3.inference import flops
from pipeline.config.parameters import Parameters
from pipeline.encode.base import FIRST
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.features.registry import Encoders, definition
from pipeline.plan.size import LONGEST
from pipeline.pretrain.loop import MEASUREMENTS
from pipeline.pretrain.params import Pretrain

SHAPES = SIZES | {
    "mini": Config(image=1, patch=1, vocab=8000, width=384, layers=6, heads=12, ffn=1536, positions=256),
}  # size -> shape whose operations are counted; that of mini has its two image tokens as CLS and a patch
CODES = 8192  # of the visual tokenizer that was published
BACKWARD = 3  # a training step takes three times the operations of its forward pass


@dataclass(frozen=True)
class Items:
    """What the items of a dataset have."""

    image: np.ndarray  # bool [I]
    tokens: np.ndarray  # int64 [I], 0 without a text

    @classmethod
    def full(cls, items: int) -> Items:
        """Return items with an image and the longest text."""
        return cls(np.ones(items, bool), np.full(items, LONGEST))


class Networks(NamedTuple):
    """Shapes of the two networks."""

    beit3: Config
    vqkd: vqkd.Config


def block(n: int, width: int, ffn: int) -> float:
    """Return the operations of one transformer layer over N positions."""
    return 2 * n * (4 * width**2 + 2 * width * ffn) + 4 * n**2 * width


def patches(c: Config | vqkd.Config) -> float:
    """Return the operations that make vectors of an image's patches."""
    return c.patches * 2 * 3 * c.patch**2 * c.width


def visual_tokens(c: vqkd.Config) -> float:
    """Return the operations of one image through the visual tokenizer."""
    codebook = 2 * c.patches * c.code_width * c.codes
    head = 2 * c.patches * c.width * (c.width + c.code_width)
    return patches(c) + c.layers * block(1 + c.patches, c.width, 4 * c.width) + head + codebook


def forward(c: Config, image: bool, tokens: int, params: Pretrain) -> float:
    """Return the operations of one item's masked pass, with the heads of masked modelling."""
    codes = c.codes or CODES
    masked = image * params.image_mask * c.patches * codes + params.text_mask * tokens * c.vocab
    vision = (1 + c.patches) * image
    return image * patches(c) + c.layers * block(vision + tokens, c.width, c.ffn) + 2 * c.width * masked


def whole(c: Config, tokens: int) -> float:
    """Return the operations of one item's forward pass, image and text, without heads."""
    return patches(c) + c.layers * block(1 + c.patches + tokens, c.width, c.ffn)


def encoding(c: Config, items: Items, reads: tuple[str, ...]) -> float:
    """Return the operations of encoding all items from the modalities that an encoder reads."""
    image, tokens = items.image & ("image" in reads), items.tokens * ("text" in reads)
    return sum(flops(c, bool(i), int(t)) for i, t in zip(image, tokens, strict=True))


def pretrain(networks: Networks, params: Parameters, items: Items) -> dict[str, float]:
    """Return precision -> operations of the stage: visual tokens, steps, held-out items, whitening."""
    own, c = params[Pretrain], networks.beit3
    pairs = list(zip(items.image.tolist(), items.tokens.tolist(), strict=True))
    one = sum(forward(c, *pair, own) for pair in pairs)
    shown = own.steps * own.batch_size / len(pairs)  # passes over the items
    if own.distill and own.size != "mini":  # one more pass, with nothing masked
        one += encoding(c, items, ("image", "text"))
    trained, held_out = BACKWARD * shown, MEASUREMENTS * own.held_out
    exact = items.image.sum() * visual_tokens(networks.vqkd) * bool(own.vqkd)
    exact += (1 - own.held_out) * encoding(c, items, ("image", "text"))
    work = {"float32": float(exact)}
    work[own.precision] = work.get(own.precision, 0.0) + (trained + held_out) * one
    return work


def shown(encoders: Encoders, name: str) -> tuple[str, ...]:
    """Return the modalities that BEiT3 reads for a feature set; none where it reads nothing for it."""
    own = definition(encoders, name)
    of = str(own.get("of")) if own.get("kind") == "masked" else name
    if of not in ENCODERS or not ENCODERS[of].pretrained:
        return ()
    return tuple(modality for modality in ENCODERS[of].reads if modality != own.get("modality"))


def encode(networks: Networks, params: Parameters, items: Items) -> dict[str, float]:
    """Return precision -> operations of the stage's BEiT3 encoders; an untrained one also fits its whitening."""
    settings = params.encoders.get("beit3", {})
    work = 0.0
    for name in params[Encode].encoders:
        if not (reads := shown(params.encoders, name)):
            continue
        one = encoding(networks.beit3, items, reads)
        fits = name == "beit3-untrained" and settings.get("whiten", True)
        fitted = min(1.0, FIRST / len(items.image)) if fits else 0.0
        work += one * (1 + fitted)
    return {settings.get("precision", "float32"): work}
