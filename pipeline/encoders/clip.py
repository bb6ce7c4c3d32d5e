"""CLIP through open_clip: any architecture, weights by published tag or from a local file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from pipeline.encoders.base import Context, unit
from pipeline.encoders.device import device_of, pick
from pipeline.errors import UserError


class Clip:
    """Image and text vectors of length 1 in one space; an item's feature is their mean, or both side by side."""

    def __init__(self, model: str, weights: str | None, joint: str) -> None:
        """Build it; `weights` None leaves it untrained."""
        network, _, look = open_clip.create_model_and_transforms(model, pretrained=weights, device=pick())
        self._network: Any = network.eval()
        self._look: Any = look
        self._tokenizer = open_clip.get_tokenizer(model)
        self._concatenates = joint == "concat"
        with torch.inference_mode():
            self._half = int(self._network.encode_text(self._tokenizer([""]).to(device_of(self._network))).shape[1])
        self.width = 2 * self._half if self._concatenates else self._half

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return zeros: CLIP pads every text to one length."""
        return np.zeros(len(texts), np.int64)

    @torch.inference_mode()
    def encode(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> np.ndarray:
        """Return float32 [B, F]; what is absent is left out of the mean, or zero in its half."""
        image = None if images is None else self._images(images)
        text = None if texts is None else self._texts(texts)
        if self._concatenates:
            empty = np.zeros((len(images if images is not None else texts or []), self._half), np.float32)
            return np.hstack([empty if x is None else x for x in (image, text)])
        present = np.stack([x for x in (image, text) if x is not None])  # [1 or 2, B, F]
        return np.asarray(present.mean(axis=0), np.float32)

    def _images(self, images: Sequence[bytes]) -> np.ndarray:
        batch = torch.stack([self._look(Image.open(io.BytesIO(i)).convert("RGB")) for i in images])
        return unit(self._network.encode_image(batch.to(device_of(self._network))).float().cpu().numpy())

    def _texts(self, texts: Sequence[str]) -> np.ndarray:
        ids = self._tokenizer(list(texts)).to(device_of(self._network))
        return unit(self._network.encode_text(ids).float().cpu().numpy())


def make(context: Context) -> Clip:
    """Load what the parameters name.

    Raises:
        UserError: no weights named, or an unknown architecture or tag.
    """
    p = context.params
    if p.clip_model not in open_clip.list_models():
        raise UserError(f"encode.clip_model: open_clip has no '{p.clip_model}'; see open_clip.list_models()")
    if p.clip_weights is None:
        raise UserError(
            "encode.clip_weights: give a local file or one of open_clip's tags, for example laion2b_s34b_b79k"
        )
    tags = open_clip.list_pretrained_tags_by_model(p.clip_model)
    if p.clip_weights not in tags and not Path(p.clip_weights).is_file():
        raise UserError(f"encode.clip_weights: '{p.clip_weights}' is neither a file nor one of {', '.join(tags)}")
    return Clip(p.clip_model, p.clip_weights, p.clip_joint)
