"""Items through BEiT3: the feature is CLS of one pass over image, text or both."""

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
from pipeline.beit3.inference import Inference, flops, multiplies_bytes, precisions
from pipeline.beit3.network import BEiT3
from pipeline.beit3.reading import halves
from pipeline.beit3.tokenizer import ENDLESS, Tokenizer
from pipeline.config.base import Section
from pipeline.encode import batching, mini
from pipeline.encode.base import FIRST, Context, Encoder, Spec
from pipeline.encode.chunks import Reading
from pipeline.errors import UserError
from pipeline.images.pixels import normalised, squares
from pipeline.items.texts import Texts
from pipeline.layout import EncoderFiles
from pipeline.ops import whitening
from pipeline.ops.device import device_of, pick, pinned, sent
from pipeline.ops.whitening import Whitening
from pipeline.seeds import seed_for


class BEiT3Params(Section):
    """What BEiT3 reads as an encoder."""

    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """of its products; features are float32 in any. CLS must keep a cosine of 0.999 to float32 on the first items;
    whitening may amplify the difference. auto: the fastest that does, by what the device multiplies: float32 for small;
    for base and large bfloat16 on a GPU or a CPU with AMX, int8 on other CPUs with AVX512-BF16 and VNNI"""
    max_tokens: Annotated[int, Field(ge=3)] | None = None
    """text beyond this is cut; by default beyond what the network has positions for, see `pretrain.max_tokens`"""
    whiten: bool = True
    """whether CLS is read by the map that `pretrain` fitted: by its teachers, or whitened; false: CLS as it is"""


Batch = tuple[list[bytes] | None, list[str] | None]  # images and texts of the same items


class Prepared(NamedTuple):
    """A batch of B items, decoded."""

    pixels: Tensor | None  # uint8 [B, S, S, 3]
    tokens: Tensor | None  # int64 [W], one text after the other
    lengths: list[int]  # tokens of each item, 0 without a text

    def parts(self) -> Iterator[Prepared]:
        ends, most = np.cumsum(self.lengths), TOKENS * len(self.lengths)
        start = 0
        while start < len(self.lengths):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
            pixels = None if self.pixels is None else self.pixels[start:stop]
            tokens = None if self.tokens is None else self.tokens[before : int(ends[stop - 1])]
            yield Prepared(pixels, tokens, self.lengths[start:stop])
            start = stop


TOKENS = 128  # of an item, on average over those that are in the network at a time
MIN_COSINE = 0.999  # to float32 that CLS keeps in any precision, before whitening
AMONG, CHECKED = 64, 8
"""first items among which, and how many of them with an image, a text and both, on which it is checked"""


class BEiT3Items:
    """BEiT3 with its tokenizer."""

    def __init__(
        self,
        network: BEiT3,
        tokenizer: Tokenizer | None,
        max_tokens: int | None,
        precision: str = "float32",
        whitening: Whitening | None = None,
    ) -> None:
        """Lay the network out for encoding on its device; without a tokenizer no texts can be read.

        UserError for a tokenizer of more ids than the network knows.
        """
        self._device = device_of(network)
        self._network = Inference(network.eval(), precision)
        self._whitening = None if whitening is None else [torch.from_numpy(x).to(self._device) for x in whitening]
        self.tokenizer = tokenizer
        if tokenizer is not None and tokenizer.vocab > network.config.vocab:
            raise UserError(
                f"beit3: the tokenizer has {tokenizer.vocab:,} ids, and the network {network.config.vocab:,}"
            )
        positions = network.config.positions - FIRST_POSITION
        self._max_tokens = min(max_tokens or positions, positions)
        self.width = network.config.width if whitening is None else whitening.map.shape[1]
        self.flops = 0.0

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(ids) for ids in self._ids(texts)], np.int64)

    def reading(self, texts: Sequence[str]) -> Reading:
        there = [len(ids) for ids in self._tokens(texts, ENDLESS)]
        return Reading(np.minimum(there, self._max_tokens).astype(np.int64), np.array(there, np.int64))

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
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
        """Return CLS, read by the map where there is one, float32 [B, D]."""
        cls = torch.cat([self._cls(part) for part in prepared.parts()])  # [B, D]
        if self._whitening is None:
            return cls
        mean, map_ = self._whitening
        return (cls - mean) @ map_

    def _cls(self, part: Prepared) -> Tensor:
        pixels, tokens, lengths = part
        image = None if pixels is None else normalised(sent(pixels, self._device))
        self.flops += sum(flops(self._network.config, image is not None, n) for n in lengths)
        return self._network.cls(image, None if tokens is None else sent(tokens, self._device), lengths)

    def _ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self._tokens(texts, self._max_tokens)

    def _tokens(self, texts: Sequence[str], most: int) -> list[np.ndarray]:
        if self.tokenizer is None:
            raise UserError("beit3: pre-trained without text, so it cannot read any; run `alignrec pretrain` again")
        return self.tokenizer.encode(texts, most)


def settled(context: Context, params: BEiT3Params) -> BEiT3Params:
    """Return the settings with the precision decided and checked; all variants get the trained network's.

    The processor and the dataset's first items decide, so a killed run decides the same again. UserError if this
    device lacks the precision, or it changes the features too much.
    """
    if stored.is_mini(context.files):
        if params.precision not in ("auto", "float32"):
            raise UserError(
                f"beit3: mini encodes in float32, not {params.precision}; leave encoders.beit3.precision out"
            )
        return params.model_copy(update={"precision": "float32"})
    choices = precisions(stored.config(context.files), pick()) if params.precision == "auto" else [params.precision]
    if choices == ["float32"]:
        return params.model_copy(update={"precision": "float32"})
    network, texts = stored.network(context.files).to(pick()), tokenizer(context.files)
    batches = _first_items(context, texts is not None)
    exact = BEiT3Items(network, texts, params.max_tokens, "float32")
    for precision in choices:
        if precision != "float32":
            cosine = _cosine(exact, BEiT3Items(network, texts, params.max_tokens, precision), batches)
        if precision == "float32" or cosine >= MIN_COSINE:
            return params.model_copy(update={"precision": precision})
    raise UserError(
        f"beit3: precision {params.precision} changes the features of these weights: cosine {cosine:.5f} to float32, "
        f"expected at least {MIN_COSINE}; take a finer one, or auto"
    )


def _first_items(context: Context, with_texts: bool) -> list[Batch]:
    layout = context.layout
    texts = Texts(layout.items).slice(0, AMONG).to_pylist()
    images = batching.read_images(io.shards(layout.images, "images"), 0, len(texts))
    if not with_texts:
        texts = [""] * len(texts)
    both = [(i, t) for i, t in zip(images, texts, strict=True) if i is not None and t.strip()][:CHECKED]
    seen = [image for image in images if image is not None][:CHECKED]
    read = [text for text in texts if text.strip()][:CHECKED]
    batches = (([i for i, _ in both], [t for _, t in both]), (seen, None), (None, read))
    return [batch for batch in batches if any(batch)]


def _cosine(exact: BEiT3Items, rough: BEiT3Items, batches: Sequence[Batch]) -> float:
    pairs = ((rough.encode(rough.prepare(*batch)), exact.encode(exact.prepare(*batch))) for batch in batches)
    return min((float(torch.cosine_similarity(*pair).min()) for pair in pairs), default=1.0)


def make(context: Context, params: BEiT3Params) -> Encoder:
    own = context.files
    if not whitens(context, params):
        return _loaded(context, params, None)
    return _loaded(
        context, params, mini.reading(own) if stored.is_mini(own) else stored.whitening(own, stored.config(own).width)
    )


def make_raw(context: Context, params: BEiT3Params) -> Encoder:
    return _loaded(context, params, None)


def whitens(context: Context, params: BEiT3Params) -> bool:
    return params.whiten and context.files.whitening.is_file()


def runnable(context: Context, precision: str) -> str:
    lacking = context.pretrained is not None and precision == "int8" and not multiplies_bytes(pick())
    return "float32" if lacking or precision == "auto" else precision


def tokenizer(own: EncoderFiles) -> Tokenizer | None:
    """Return what `pretrain` trained on the items' texts; None where no item had any. UserError if it is invalid."""
    return Tokenizer(own.tokenizer.read_bytes()) if own.tokenizer.is_file() else None


def _loaded(context: Context, params: BEiT3Params, whitening: Whitening | None) -> Encoder:
    if stored.is_mini(context.files):
        return mini.load(context.files, params.max_tokens, whitening)
    files, precision = context.files, runnable(context, params.precision)
    return BEiT3Items(stored.network(files).to(pick()), tokenizer(files), params.max_tokens, precision, whitening)


BEIT3 = Spec(make, BEiT3Params, pretrained=True, settled=settled)
RAW = replace(BEIT3, make=make_raw, variant_of="beit3")
IMAGE_MASKED = replace(BEIT3, reads=("text",), variant_of="beit3")
TEXT_MASKED = replace(BEIT3, reads=("image",), variant_of="beit3")


def make_untrained(context: Context, params: BEiT3Params) -> Encoder:
    """Draw the weights, with the trained one's shape and tokenizer: the control for pre-training; `mini` as it began.

    CLS is whitened, as fitted to the FIRST items, where the trained one's is read by a map: no teacher has a map of it.
    """
    layout, shared = context.layout, context.params
    unread = _untrained(context, params, None)
    if not whitens(context, params):
        return unread
    texts = Texts(layout.items).slice(0, FIRST).to_pylist()
    images = batching.read_images(io.shards(layout.images, "images"), 0, len(texts))
    encoded = batching.encode(unread, texts, images, shared.batch_size, workers=shared.workers)
    return _untrained(context, params, encoded.vectors[encoded.has_image | encoded.has_text])


def _untrained(context: Context, params: BEiT3Params, vectors: np.ndarray | None) -> Encoder:
    files = context.files
    if stored.is_mini(files):
        return mini.load_untrained(context, params.max_tokens, None if vectors is None else halves(vectors))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("untrained", context.layout.dataset, context.params.seed))
        network = BEiT3(stored.config(files)).to(pick())
    fitted = None if vectors is None else whitening.fit(vectors)
    return BEiT3Items(network, tokenizer(files), params.max_tokens, runnable(context, params.precision), fitted)


UNTRAINED = replace(BEIT3, make=make_untrained, variant_of="beit3", portable=False)


def make_official(context: Context, params: BEiT3Params) -> BEiT3Items:
    files = context.files
    if not files.official.is_file():
        raise UserError(
            f"{context.name}: no {files.official}; name official weights under pretrain.init, run `alignrec pretrain`"
        )
    network = BEiT3(replace(stored.config(files), codes=0, mlm=False))
    network.load_state_dict(load_file(files.official), strict=True)
    precision = runnable(context, params.precision)
    return BEiT3Items(network.to(pick()), tokenizer(files), params.max_tokens, precision)


OFFICIAL = replace(BEIT3, make=make_official, variant_of="beit3", portable=False)
