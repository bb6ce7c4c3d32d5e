"""CLIP through open_clip: any architecture, weights by published tag or from a local file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.config import Section
from pipeline.encode.base import Context, Spec
from pipeline.errors import UserError
from pipeline.ops.device import device_of, pick, pinned, sent


class ClipParams(Section):
    """What CLIP reads."""

    model: str = "ViT-B-32"
    """open_clip architecture"""
    weights: str | None = None
    """open_clip tag or local file; it needs one"""
    joint: Literal["mean", "concat"] = "mean"
    """how image and text are joined"""


class Prepared(NamedTuple):
    """A batch of B items, decoded."""

    pixels: Tensor | None
    """float32 [B, 3, S, S], normalised as the model wants them"""
    tokens: Tensor | None
    """int64 [B, T]"""


class Clip:
    """Image and text vectors of length 1 in one space; an item's feature is their mean, or both side by side."""

    def __init__(self, model: str, weights: str | None, joint: str) -> None:
        """Build it; `weights` None leaves it untrained."""
        import open_clip  # takes seconds, and settings do not need it

        network, _, transform = open_clip.create_model_and_transforms(model, pretrained=weights, device=pick())
        self._network: Any = network.eval()
        self._transform: Any = transform
        self._tokenizer = open_clip.get_tokenizer(model)
        self._concatenates = joint == "concat"
        with torch.inference_mode():
            half = int(self._network.encode_text(self._tokenizer([""]).to(device_of(self._network))).shape[1])
        self._lock = Lock()  # some of open_clip's tokenizers cannot be used by two threads at once
        self.flops = 0.0
        self.width = 2 * half if self._concatenates else half

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return zeros: CLIP pads every text to one length."""
        return np.zeros(len(texts), np.int64)

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        """Decode and tokenise."""
        pixels = tokens = None
        if images is not None:
            pixels = pinned(torch.stack([self._transform(Image.open(io.BytesIO(i)).convert("RGB")) for i in images]))
        if texts is not None:
            with self._lock:
                tokens = pinned(self._tokenizer(list(texts)))
        return Prepared(pixels, tokens)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        """Return float32 [B, F]; what is absent is left out of the mean, or zero in its half."""
        device = device_of(self._network)
        image, text = prepared
        halves = [
            None if image is None else F.normalize(self._network.encode_image(sent(image, device)).float()),
            None if text is None else F.normalize(self._network.encode_text(sent(text, device)).float()),
        ]
        present = [half for half in halves if half is not None]
        if self._concatenates:
            return torch.cat([torch.zeros_like(present[0]) if half is None else half for half in halves], dim=1)
        return torch.stack(present).mean(dim=0)  # [1 or 2, B, F] -> [B, F]


def make(context: Context, params: ClipParams) -> Clip:
    """Load what the settings name.

    Raises:
        UserError: no weights named, or an unknown architecture or tag.
    """
    import open_clip

    model, weights = params.model, params.weights
    if model not in open_clip.list_models():
        raise UserError(f"encode.settings.clip.model: open_clip has no '{model}'; see open_clip.list_models()")
    if weights is None:
        raise UserError(
            "encode.settings.clip.weights: give a local file or one of open_clip's tags, for example laion2b_s34b_b79k"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights not in tags and not Path(weights).is_file():
        raise UserError(f"encode.settings.clip.weights: '{weights}' is neither a file nor one of {', '.join(tags)}")
    return Clip(model, weights, params.joint)


CLIP = Spec(make, ClipParams, packages=("open_clip_torch",))
