"""Items through BEiT3: the feature is CLS of one pass over image, text or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from torch import Tensor

from pipeline import io
from pipeline.beit3.inference import Inference, flops
from pipeline.beit3.network import FIRST_POSITION, BEiT3, Config
from pipeline.beit3.tokenizer import Tokenizer
from pipeline.config import Section
from pipeline.encode.base import Context, Spec
from pipeline.errors import UserError
from pipeline.images.pixels import normalised, squares
from pipeline.layout import EncoderFiles
from pipeline.ops.device import device_of, pick, pinned, sent
from pipeline.ops.whitening import Whitening


class BEiT3Params(Section):
    """What BEiT3 reads as an encoder."""

    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    """of its products; features are float32 in any. For base and large, bfloat16 is twice as fast on a GPU or a CPU
    that multiplies it, int8 a third faster still on a CPU with VNNI. CLS keeps a cosine of 0.999 to float32,
    checked on the first items; whitening may amplify the difference"""
    max_tokens: Annotated[int, Field(ge=3)] = 128
    """text beyond this is cut"""
    whiten: bool = True
    """whether features are CLS whitened, as `pretrain` fitted it; false: CLS as it is"""


class Prepared(NamedTuple):
    """A batch of B items, decoded."""

    pixels: Tensor | None
    """uint8 [B, S, S, 3]"""
    tokens: Tensor | None
    """int64 [W], one text after the other"""
    lengths: list[int]
    """tokens of each item, 0 without a text"""


MIN_COSINE = 0.999
"""to float32 that CLS keeps in any precision, before whitening"""
CHECKED = 8
"""first items on which it is checked"""


class BEiT3Items:
    """BEiT3 with its tokenizer."""

    def __init__(
        self,
        network: BEiT3,
        tokenizer: Tokenizer | None,
        max_tokens: int,
        precision: str = "float32",
        whitening: Whitening | None = None,
    ) -> None:
        """Lay the network out for encoding on its device; without a tokenizer no texts can be read."""
        self._device = device_of(network)
        self._network = Inference(network.eval(), precision)
        self._precision, self._unchecked = precision, None if precision == "float32" else network
        self._whitening = None if whitening is None else [torch.from_numpy(x).to(self._device) for x in whitening]
        self.tokenizer = tokenizer
        self._max_tokens = min(max_tokens, network.config.positions - FIRST_POSITION)
        self.width = network.config.width
        self.flops = 0.0

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text."""
        return np.array([len(ids) for ids in self._ids(texts)], np.int64)

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        """Decode and tokenise."""
        pixels = tokens = None
        lengths = [0] * len(images or ())
        if images is not None:
            pixels = pinned(torch.from_numpy(squares(images, self._network.config.image)))
        if texts is not None:
            ids = self._ids(texts)
            tokens, lengths = pinned(torch.from_numpy(np.concatenate(ids))), [len(x) for x in ids]
        return Prepared(pixels, tokens, lengths)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        """Return CLS, whitened where there is a whitening, float32 [B, D].

        Raises:
            UserError: on the first items this precision changes the features too much.
        """
        pixels, tokens, lengths = prepared
        image = None if pixels is None else normalised(sent(pixels, self._device))
        tokens = None if tokens is None else sent(tokens, self._device)
        cls = self._network.cls(image, tokens, lengths)  # [B, D]
        if self._unchecked is not None:
            self._check(self._unchecked, image, tokens, lengths, cls)
        self.flops += sum(flops(self._network.config, image is not None, n) for n in lengths)
        if self._whitening is None:
            return cls
        mean, map_ = self._whitening
        return (cls - mean) @ map_

    def _check(
        self, network: BEiT3, image: Tensor | None, tokens: Tensor | None, lengths: list[int], cls: Tensor
    ) -> None:
        """Compare `cls` [B, D] with the network's own in float32."""
        texts = [None] * len(lengths) if tokens is None else [part[None] for part in tokens.split(lengths)]
        for i, text in enumerate(texts[:CHECKED]):
            exact = network.cls(None if image is None else image[i : i + 1], text)  # [1, D]
            if (cosine := float(torch.cosine_similarity(cls[i : i + 1], exact))) < MIN_COSINE:
                raise UserError(
                    f"encoders.beit3.precision {self._precision} changes these weights' features: cosine "
                    f"{cosine:.5f} to float32, expected at least {MIN_COSINE}; take a finer precision"
                )
        self._unchecked = None

    def _ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self.tokenizer is None:
            raise UserError("beit3: pre-trained without text, so it cannot read any; run `alignrec pretrain` again")
        return self.tokenizer.encode(texts, self._max_tokens)


def make(context: Context, params: BEiT3Params) -> BEiT3Items:
    """Load what `pretrain` wrote."""
    whitening = Whitening(**load_arrays(context.files.whitening)) if whitens(context, params) else None
    return _loaded(context.files, params, whitening)


def make_raw(context: Context, params: BEiT3Params) -> BEiT3Items:
    """Load what `pretrain` wrote, but for the whitening: the feature is CLS as it is."""
    return _loaded(context.files, params, None)


def whitens(context: Context, params: BEiT3Params) -> bool:
    """Return whether features are whitened; those of a release that was made without whitening are not."""
    return params.whiten and context.files.whitening.is_file()


def tokenizer(files: EncoderFiles) -> Tokenizer | None:
    """Return what `pretrain` trained on the items' texts; None where no item had any."""
    return Tokenizer(files.tokenizer.read_bytes()) if files.tokenizer.is_file() else None


def _loaded(files: EncoderFiles, params: BEiT3Params, whitening: Whitening | None) -> BEiT3Items:
    network = BEiT3(Config(**io.read_json(files.config)))
    network.load_state_dict(load_file(files.weights), strict=True)
    return BEiT3Items(network.to(pick()), tokenizer(files), params.max_tokens, params.precision, whitening)


BEIT3 = Spec(make, BEiT3Params, pretrained=True)
RAW = replace(BEIT3, make=make_raw, variant_of="beit3")
IMAGE_MASKED = replace(BEIT3, reads=("text",), variant_of="beit3")
TEXT_MASKED = replace(BEIT3, reads=("image",), variant_of="beit3")
