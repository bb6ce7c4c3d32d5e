"""Content encoders: pictures and texts in, one vector an item out.

Another encoder is one module with `make(context)` that returns an Encoder (base.py), and one entry below.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.encode.base import Context, Encoder

if (
    TYPE_CHECKING
):  # each brings libraries of its own, so they are imported when used; dvc.yaml still has to know of them
    from pipeline.encode import beit3, beit3_untrained, clip, cnn, minilm, minilm_cnn  # noqa: F401


@dataclass(frozen=True)
class Entry:
    """How to make one encoder."""

    module: str
    """a module of this package"""
    reads: tuple[str, ...] = ("image", "text")
    """modalities that it is shown; the other is hidden from it"""
    pretrained: bool = False
    """whether it loads what the stage `pretrain` wrote"""

    @property
    def path(self) -> str:
        """The module's full name."""
        return f"{__package__}.{self.module}"

    def make(self, context: Context) -> Encoder:
        """Load the network."""
        made: Encoder = importlib.import_module(self.path).make(context)
        return made


ENCODERS: dict[str, Entry] = {
    "beit3": Entry("beit3", pretrained=True),
    "beit3-image-masked": Entry("beit3", reads=("text",), pretrained=True),
    "beit3-text-masked": Entry("beit3", reads=("image",), pretrained=True),
    "beit3-untrained": Entry("beit3_untrained", pretrained=True),
    "minilm": Entry("minilm", reads=("text",)),
    "cnn": Entry("cnn", reads=("image",)),
    "minilm-cnn": Entry("minilm_cnn"),
    "clip": Entry("clip"),
}
"""name of the feature set -> encoder"""
