"""Encoder of BEiT3: the feature is CLS of one pass over image, text or both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from pipeline import io
from pipeline.beit3 import stored
from pipeline.beit3.config import FIRST_POSITION
from pipeline.beit3.inference import Inference
from pipeline.beit3.mini import halves
from pipeline.beit3.network import BEiT3
from pipeline.beit3.tokenizer import Tokenizer
from pipeline.config.base import Section
from pipeline.encode import batching, mini
from pipeline.encode.base import FIRST, Context, Encoder, Spec
from pipeline.errors import UserError
from pipeline.images.pixels import normalised, squares
from pipeline.items.texts import Texts
from pipeline.layout import EncoderFiles
from pipeline.ops import whitening
from pipeline.ops.device import device_of, pick, pinned, sent
from pipeline.ops.whitening import Whitening
from pipeline.seeds import seed_for


class BEiT3Params(Section):
    """Settings of kind `beit3`."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of products; features are float32. bfloat16 for base and large on a GPU, or on a CPU with AMX or
    AVX512-BF16; size mini encodes in float32"""
    max_tokens: Annotated[int, Field(ge=3)] | None = None
    """text beyond this is cut; by default beyond what the network has positions for, see `pretrain.max_tokens`"""
    whiten: bool = True
    """whether CLS is read by the map that `pretrain` fitted: by its teachers, or whitened; false: raw CLS"""


TOKENS = 128  # per item, on average over those that are in the network at a time


class Prepared(NamedTuple):
    """A batch of B items, decoded."""

    pixels: Tensor | None  # uint8 [B, S, S, 3]
    tokens: Tensor | None  # int64 [W], one text after the other
    lengths: list[int]  # tokens of each item, 0 without a text

    def parts(self) -> Iterator[Prepared]:
        """Yield parts of at least one item and at most TOKENS per item on average: long texts take memory."""
        ends, most = np.cumsum(self.lengths), TOKENS * len(self.lengths)
        start = 0
        while start < len(self.lengths):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
            pixels = None if self.pixels is None else self.pixels[start:stop]
            tokens = None if self.tokens is None else self.tokens[before : int(ends[stop - 1])]
            yield Prepared(pixels, tokens, self.lengths[start:stop])
            start = stop


class BEiT3Items(mini.Truncating):
    """BEiT3 with its tokenizer, None for a network without texts; UserError if it has more ids than the network."""

    def __init__(
        self,
        network: BEiT3,
        tokenizer: Tokenizer | None,
        max_tokens: int | None,
        precision: str = "float32",
        whitening: Whitening | None = None,
    ) -> None:
        positions, vocab = network.config.positions - FIRST_POSITION, network.config.vocab
        super().__init__(tokenizer, min(max_tokens or positions, positions))
        self._device = device_of(network)
        self._network = Inference(network.eval(), precision)
        self._whitening = None if whitening is None else [torch.from_numpy(x).to(self._device) for x in whitening]
        if tokenizer is not None and tokenizer.vocab > vocab:
            raise UserError(f"beit3: the tokenizer has {tokenizer.vocab:,} ids, and the network {vocab:,}")
        self.width = network.config.width if whitening is None else whitening.map.shape[1]

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        pixels = tokens = None
        lengths = [0] * len(images or ())
        if images is not None:
            pixels = pinned(torch.from_numpy(squares(images, self._network.config.image)))
        if texts is not None:
            ids = self.ids(texts)
            tokens, lengths = pinned(torch.from_numpy(np.concatenate(ids))), [len(x) for x in ids]
        return Prepared(pixels, tokens, lengths)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        parts = []
        for pixels, tokens, lengths in prepared.parts():
            image = None if pixels is None else normalised(sent(pixels, self._device))
            text = None if tokens is None else sent(tokens, self._device)
            parts.append(self._network.cls(image, text, lengths))
        cls = torch.cat(parts)  # [B, D]
        return cls if self._whitening is None else (cls - self._whitening[0]) @ self._whitening[1]


def tokenizer(own: EncoderFiles) -> Tokenizer | None:
    """Return the tokenizer of `pretrain`, None if no item had text; UserError if it is invalid."""
    return Tokenizer(own.tokenizer.read_bytes()) if own.tokenizer.is_file() else None


def make(context: Context, params: BEiT3Params) -> Encoder:
    own = context.files
    if not (params.whiten and own.whitening.is_file()):  # a release may lack the map
        return make_raw(context, params)
    read = mini.reading(own) if stored.is_mini(own) else stored.whitening(own, stored.config(own).width)
    return make_raw(context, params, read)


def make_raw(context: Context, params: BEiT3Params, whitening: Whitening | None = None) -> Encoder:
    """Load the output of `pretrain`; the feature is CLS itself without a map."""
    files, precision = context.files, params.precision
    if stored.is_mini(files):
        if precision != "float32":
            raise UserError(f"beit3: mini encodes in float32, not {precision}; leave out encoders.beit3.precision")
        return mini.load(files, params.max_tokens, whitening)
    return BEiT3Items(stored.network(files).to(pick()), tokenizer(files), params.max_tokens, precision, whitening)


def make_untrained(context: Context, params: BEiT3Params) -> Encoder:
    """Draw the weights, with the trained one's shape and tokenizer: the control for pre-training; `mini` as it began.

    CLS is whitened, fitted to the FIRST items, as there is no map to teachers.
    """
    layout, shared = context.layout, context.params
    raw = _untrained(context, params, None)
    if not (params.whiten and context.files.whitening.is_file()):
        return raw
    texts = Texts(layout.items).slice(0, FIRST).to_pylist()
    images = batching.read_images(io.shards(layout.images, "images"), 0, len(texts))
    encoded = batching.encode(raw, texts, images, shared.batch_size, workers=shared.workers)
    return _untrained(context, params, encoded.vectors[encoded.has_image | encoded.has_text])


def _untrained(context: Context, params: BEiT3Params, vectors: np.ndarray | None) -> Encoder:
    """Return the untrained network; given vectors, with a map that is fitted to them, as without teachers."""
    files = context.files
    if stored.is_mini(files):
        return mini.load_untrained(context, params.max_tokens, None if vectors is None else halves(vectors))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("untrained", context.layout.dataset, context.params.seed))
        network = BEiT3(stored.config(files)).to(pick())
    fitted = None if vectors is None else whitening.fit(vectors)
    return BEiT3Items(network, tokenizer(files), params.max_tokens, params.precision, fitted)


def make_official(context: Context, params: BEiT3Params) -> BEiT3Items:
    """Load the weights of `pretrain.init` before any training here: the control for `beit3-raw`."""
    files = context.files
    if not files.official.is_file():
        raise UserError(
            f"{context.name}: no {files.official}; name official weights under pretrain.init, run `alignrec pretrain`"
        )
    network = BEiT3(replace(stored.config(files), codes=0, mlm=False))
    network.load_state_dict(load_file(files.official), strict=True)
    return BEiT3Items(network.to(pick()), tokenizer(files), params.max_tokens, params.precision)


BEIT3 = Spec(make, BEiT3Params, pretrained=True)
RAW = replace(BEIT3, make=make_raw, variant_of="beit3")
IMAGE_MASKED = replace(BEIT3, reads=("text",), variant_of="beit3")
TEXT_MASKED = replace(BEIT3, reads=("image",), variant_of="beit3")
UNTRAINED = replace(BEIT3, make=make_untrained, variant_of="beit3", portable=False)
OFFICIAL = replace(BEIT3, make=make_official, variant_of="beit3", portable=False)
