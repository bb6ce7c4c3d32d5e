"""Today's open-source recipe: MiniLM's vector of the text beside the CNN's of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.encoders.base import Context, Encoder, unit
from pipeline.encoders.cnn import make as make_cnn
from pipeline.encoders.minilm import make as make_minilm


class Beside:
    """[text, image], each of length 1; the part of an absent modality is zero."""

    def __init__(self, text: Encoder, image: Encoder) -> None:
        self.text, self.image = text, image
        self.width = text.width + image.width

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text."""
        return self.text.lengths(texts)

    def encode(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> np.ndarray:
        """Return float32 [B, text width + image width]."""
        n = len(images if images is not None else texts or [])
        out = np.zeros((n, self.width), np.float32)
        if texts is not None:
            out[:, : self.text.width] = unit(self.text.encode(None, texts))
        if images is not None:
            out[:, self.text.width :] = unit(self.image.encode(images, None))
        return out


def make(context: Context) -> Beside:
    """Load both."""
    return Beside(make_minilm(context), make_cnn(context))
