"""Items through BEiT3: the feature is CLS of one pass over whatever the item has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from pipeline import io
from pipeline.encoders.base import Context
from pipeline.encoders.beit3 import FIRST_POSITION, BEiT3, Config
from pipeline.encoders.device import device_of, pick
from pipeline.encoders.pixels import normalised, squares
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.tokens import Tokenizer, pad
from pipeline.whiten import Whitening


class BEiT3Items:
    """BEiT3 with its tokenizer."""

    def __init__(
        self, network: BEiT3, tokenizer: Tokenizer | None, max_tokens: int, whitening: Whitening | None = None
    ) -> None:
        self.network = network.eval()
        self.whitening = whitening
        self.tokenizer = tokenizer
        self.max_tokens = min(max_tokens, network.config.positions - FIRST_POSITION)
        self.width = network.config.width

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text."""
        return np.array([len(ids) for ids in self._ids(texts)], np.int64)

    @torch.inference_mode()
    def encode(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> np.ndarray:
        """Return CLS, whitened if pre-training says so, float32 [B, D]."""
        device = device_of(self.network)
        image = tokens = padding = None
        if images is not None:
            image = normalised(squares(images, self.network.config.image)).to(device)
        if texts is not None:
            tokens, padding = (torch.from_numpy(x).to(device) for x in pad(self._ids(texts)))
            padding = padding if bool(padding.any()) else None  # without a mask attention takes its fastest path
        cls = self.network.cls(image, tokens, padding).float().cpu().numpy()  # [B, D]
        return cls if self.whitening is None else self.whitening(cls)

    def _ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self.tokenizer is None:
            raise UserError("beit3: pre-trained without text, so it cannot read any; run `alignrec pretrain` again")
        return self.tokenizer.encode(texts, self.max_tokens)


def make(context: Context) -> BEiT3Items:
    """Load what `pretrain` wrote."""
    layout = context.layout
    network = BEiT3(Config(**io.read_json(layout.encoder_config)))
    network.load_state_dict(load_file(layout.encoder_weights), strict=True)
    whitening = Whitening(**load_arrays(layout.whitening)) if layout.whitening.is_file() else None
    return BEiT3Items(network.to(pick()), tokenizer(layout), context.params.max_tokens, whitening)


def tokenizer(layout: Layout) -> Tokenizer | None:
    """Return what `pretrain` trained on the items' texts; None where no item had any."""
    return Tokenizer(layout.tokenizer.read_bytes()) if layout.tokenizer.is_file() else None
