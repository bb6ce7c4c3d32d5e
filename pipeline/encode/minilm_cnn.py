"""Today's open-source recipe: MiniLM's vector of the text beside the CNN's of the image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.encode import cnn, minilm
from pipeline.encode.base import Context, Encoder, Spec
from pipeline.encode.chunks import Reading
from pipeline.encode.minilm import MiniLM, MiniLMParams
from pipeline.encode.towers import joined


class Concatenated:
    """[text, image], each of length 1; the part of an absent modality is zero."""

    def __init__(self, text: MiniLM, image: Encoder) -> None:
        self.text, self.image = text, image
        self.width = text.width + image.width
        self.flops = 0.0

    @property
    def halves(self) -> dict[str, int]:
        return {"text": self.text.width, "image": self.image.width}

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        return self.text.lengths(texts)

    def reading(self, texts: Sequence[str]) -> Reading:
        return self.text.reading(texts)

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> tuple[Any, Any]:
        return (
            None if texts is None else self.text.prepare(None, texts),
            None if images is None else self.image.prepare(images, None),
        )

    def encode(self, prepared: tuple[Any, Any]) -> Tensor:
        both = zip((self.text, self.image), prepared, strict=True)
        halves = [None if inputs is None else encoder.encode(inputs) for encoder, inputs in both]
        return joined(halves, [self.text.width, self.image.width], "concat")


def make(context: Context, params: MiniLMParams) -> Concatenated:
    return Concatenated(MiniLM(params), cnn.load())


MINILM_CNN = Spec(make, MiniLMParams, packages=(minilm.PACKAGE, cnn.PACKAGE))
