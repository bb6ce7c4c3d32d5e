"""Encoders of BEiT3 and of BEiT3 `mini`, whose image tokens are vectors of frozen encoders.

Letters: B items per batch, n items or parts of texts, T tokens, S image side, D width, W width of
the vectors of frozen encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.config import FIRST_POSITION, BEiT3Config, MiniConfig
from alignrec.pipeline.beit3.image_vectors import ImageVectorCache
from alignrec.pipeline.beit3.mini import Mini
from alignrec.pipeline.beit3.minilm import WordPieces
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import BEiT3Params
from alignrec.pipeline.beit3.summaries import centre_halves
from alignrec.pipeline.beit3.tokenizer import UNK, Tokenizer, pad_rows, split_text
from alignrec.pipeline.encoders.chunks import Chunks, Splitter, SplitText
from alignrec.pipeline.encoders.descriptors import Descriptors
from alignrec.pipeline.encoders.params import MOST_CHUNKS
from alignrec.pipeline.encoders.registry import Encoder
from alignrec.pipeline.encoders.timm import CNN
from alignrec.pipeline.images.decode import decode_squares, normalise_pixels
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import device_of, move_to, pick_device, pin_memory
from alignrec.pipeline.linalg.projections import Whitening
from alignrec.pipeline.runtime.layout import EncoderFiles

TOKENS_PER_PART = 128  # mean tokens per part in a forward pass, with padding; bounds memory


class TextReader(Splitter):
    """Tokenises texts and splits them into at most `max_parts` parts of `max_tokens` ids."""

    def __init__(
        self, tokenizer: Tokenizer | WordPieces | None, max_tokens: int, max_parts: int
    ) -> None:
        self.tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._max_parts = max_parts

    def split_texts(self, texts: Sequence[str]) -> list[SplitText]:
        if self.tokenizer is None:
            raise UserError(
                "beit3: pre-trained without text, so it cannot read any; "
                "run `alignrec pretrain` again"
            )
        split = []
        for ids in self.tokenizer.encode(texts):
            parts = split_text(ids, self._max_tokens, self._max_parts)
            lengths = [len(part) - 2 for part in parts]  # without <s> and </s>
            unknown = sum(int((part == UNK).sum()) for part in parts)
            split.append(SplitText(parts, lengths, len(ids), unknown))
        return split


class PaddedParts(NamedTuple):
    """Inputs of a forward pass: n parts of texts, or n items without text."""

    items: np.ndarray  # int64 [n], item of each part
    tokens: Tensor | None  # int64 [n, T]
    padding: Tensor | None  # bool [n, T], True after the end of a part


class BEiT3Batch(NamedTuple):
    """Decoded images and tokenised texts of B items."""

    pixels: Tensor | None  # uint8 [B, S, S, 3]
    chunks: Chunks | None  # parts of the texts
    passes: list[PaddedParts]


class BEiT3Items(TextReader):
    """BEiT3 with its tokenizer, which is None if the network was trained without text."""

    def __init__(
        self,
        network: BEiT3,
        tokenizer: Tokenizer | None,
        max_tokens: int | None,
        chunks: int = MOST_CHUNKS,
        precision: str = "float32",
        whitening: Whitening | None = None,
    ) -> None:
        config = network.config
        positions = config.positions - FIRST_POSITION
        super().__init__(tokenizer, min(max_tokens or positions, positions), chunks)
        if tokenizer is not None and tokenizer.vocab > config.vocab:
            raise UserError(
                f"beit3: the tokenizer has {tokenizer.vocab:,} ids, "
                f"and the network {config.vocab:,}"
            )
        self._device = device_of(network)
        self._network = network.eval()
        self._is_bfloat16 = precision == "bfloat16"
        self._whitening = _move_map(whitening, self._device)
        self.width = config.width if whitening is None else whitening.map.shape[1]

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> BEiT3Batch:
        pixels = None
        if images is not None:
            squares = decode_squares(images, self._network.config.image)
            pixels = pin_memory(torch.from_numpy(squares))
        if texts is None:
            n = len(images or ())
            return BEiT3Batch(pixels, None, [PaddedParts(np.arange(n), None, None)])

        chunks = self.chunks(texts)
        passes = []
        for group in chunks.groups():
            longest = max(len(chunks.parts[part]) for part in group)
            parts_per_pass = max(1, TOKENS_PER_PART * len(group) // longest)
            starts = range(0, len(group), parts_per_pass)
            passes += [
                _pad_parts(chunks, group[start : start + parts_per_pass]) for start in starts
            ]
        return BEiT3Batch(pixels, chunks, passes)

    @torch.inference_mode()
    def encode(self, prepared: BEiT3Batch) -> Tensor:
        pixels = prepared.pixels
        if pixels is not None:
            pixels = move_to(pixels, self._device)
        # the residual stream stays in float32
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_bfloat16):
            cls = torch.cat([self._encode_pass(pixels, parts) for parts in prepared.passes])

        if prepared.chunks is not None:
            cls = prepared.chunks.average_parts([cls])  # [B, D]
        if self._whitening is None:
            return cls
        mean, linear = self._whitening
        return (cls - mean) @ linear

    def _encode_pass(self, pixels: Tensor | None, parts: PaddedParts) -> Tensor:
        image = None
        if pixels is not None:
            image = normalise_pixels(pixels[move_to(torch.from_numpy(parts.items), self._device)])
        if parts.tokens is None or parts.padding is None:
            return self._network.summary(image, None).float()
        tokens = move_to(parts.tokens, self._device)
        return self._network.summary(image, tokens, move_to(parts.padding, self._device)).float()


def _pad_parts(chunks: Chunks, numbers: np.ndarray) -> PaddedParts:
    tokens, padding = pad_rows([chunks.parts[number] for number in numbers])
    return PaddedParts(
        chunks.owner[numbers],
        pin_memory(torch.from_numpy(tokens)),
        pin_memory(torch.from_numpy(padding)),
    )


def _move_map(whitening: Whitening | None, device: torch.device) -> tuple[Tensor, Tensor] | None:
    if whitening is None:
        return None
    mean = torch.from_numpy(whitening.mean).to(device)
    return mean, torch.from_numpy(whitening.map).to(device)


class MiniBatch(NamedTuple):
    """Image vectors, images to encode and tokenised texts of B items."""

    # float32 [B, W], zeros for images that are not cached; None without images
    image: Tensor | None
    new: np.ndarray  # int64, rows of images that are not cached
    parts: list[Any]  # images that are not cached, prepared for each image encoder
    chunks: Chunks | None  # parts of the texts
    ids: list[tuple[Tensor, Tensor]]  # per group of parts: ids, int64 [<= B, T], and padding, bool


class MiniItems(TextReader):
    """BEiT3 `mini` with its tokenizer and the frozen image encoders."""

    def __init__(
        self,
        network: Mini,
        pieces: WordPieces,
        max_tokens: int | None,
        chunks: int,
        whitening: Whitening | None = None,
        cache: ImageVectorCache | None = None,
    ) -> None:
        positions = network.config.positions
        super().__init__(pieces, min(max_tokens or positions, positions), chunks)
        self._cache = cache or ImageVectorCache(np.zeros(0, "S16"), [])
        self._device = device_of(network)
        self._network = network.eval()
        self._whitening = _move_map(whitening, self._device)
        self.width = network.summary_width if whitening is None else whitening.map.shape[1]

    @cached_property
    def _image_encoders(self) -> list[CNN | Descriptors]:
        return [CNN(), Descriptors()]  # only for images that are not cached: loading takes a second

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> MiniBatch:
        image = None
        new = np.zeros(0, np.int64)
        parts: list[Any] = []
        # a network trained without images ignores them
        if images is not None and self._network.config.image_widths:
            width = sum(self._network.config.image_widths)
            vectors, new = self._cache.look_up(images, width)
            image = pin_memory(torch.from_numpy(vectors))
            if len(new):
                new_images = [images[row] for row in new.tolist()]
                parts = [encoder.prepare(new_images, None) for encoder in self._image_encoders]

        chunks = None
        ids = []
        if texts is not None:
            chunks = self.chunks(texts)
            for group in chunks.groups():
                padded, padding = pad_rows([chunks.parts[part] for part in group])
                ids.append(
                    (pin_memory(torch.from_numpy(padded)), pin_memory(torch.from_numpy(padding)))
                )
        return MiniBatch(image, new, parts, chunks, ids)

    @torch.inference_mode()
    def encode(self, prepared: MiniBatch) -> Tensor:
        image = self._complete_vectors(prepared)
        if prepared.chunks is not None:
            summary = self._encode_texts(image, prepared.chunks, prepared.ids)
        elif image is not None:
            summary = self._network.summary(image, None).float()
        else:
            raise UserError("beit3: pre-trained without images, so it needs a text")
        if self._whitening is None:
            return summary
        mean, linear = self._whitening
        return centre_halves(summary, mean) @ linear

    def _complete_vectors(self, prepared: MiniBatch) -> Tensor | None:
        """Return the vectors of all images, encoding those that are not cached."""
        if prepared.image is None:
            return None
        image = move_to(prepared.image, self._device)
        if prepared.parts:
            vectors = []
            for encoder, part in zip(self._image_encoders, prepared.parts, strict=True):
                vectors.append(encoder.encode(part).to(self._device))
            image[prepared.new] = torch.cat(vectors, 1)
        return image

    def _encode_texts(
        self, image: Tensor | None, chunks: Chunks, ids: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Return summaries averaged over the parts of each text, the image with each part."""
        summaries = []
        for group, (padded, padding) in zip(chunks.groups(), ids, strict=True):
            owner = move_to(torch.from_numpy(chunks.owner[group]), self._device)
            tokens = move_to(padded, self._device)
            image_of_parts = None if image is None else image[owner]
            hidden = move_to(padding, self._device)
            summaries.append(self._network.summary(image_of_parts, tokens, hidden).float())
        return chunks.average_parts(summaries)


def load_beit3(
    files: EncoderFiles, params: BEiT3Params, raw: bool, cache: ImageVectorCache | None = None
) -> Encoder:
    """Load a network from untrusted files.

    Vectors are raw CLS if `raw` is set or the files lack the map.
    """
    is_mapped = params.whiten and not raw and files.whitening.is_file()  # a release may lack it
    if stored.is_mini(files):
        return _load_mini(files, params, is_mapped, cache)

    whitening = None
    if is_mapped:
        width = stored.read_config(files, BEiT3Config).width
        whitening = stored.read_whitening(files, width)
    network = stored.load_network(files).to(pick_device())
    tokenizer = None
    if files.tokenizer.is_file():
        tokenizer = Tokenizer(files.tokenizer.read_bytes())
    return BEiT3Items(
        network, tokenizer, params.max_tokens, params.chunks, params.precision, whitening
    )


def _load_mini(
    files: EncoderFiles, params: BEiT3Params, is_mapped: bool, cache: ImageVectorCache | None
) -> MiniItems:
    if params.precision != "float32":
        raise UserError(
            f"beit3: mini encodes in float32, not {params.precision}; leave out beit3.precision"
        )
    network = Mini(stored.read_config(files, MiniConfig))
    whitening = stored.read_whitening(files, network.summary_width) if is_mapped else None
    network.load_state_dict(load_file(io.require_plain(files.weights)), strict=True)
    pieces = load_pieces(files)
    return MiniItems(
        network.to(pick_device()), pieces, params.max_tokens, params.chunks, whitening, cache
    )


def load_pieces(files: EncoderFiles) -> WordPieces:
    return WordPieces(io.read_json(files.word_pieces)["pieces"])
