"""Encoders of BEiT3 and of BEiT3 `mini`, whose image tokens are vectors of frozen encoders.

Letters: B items per batch, I in all, n items or parts of texts, D width, W width of the vectors of frozen encoders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.config import FIRST_POSITION, BEiT3Config, MiniConfig
from alignrec.pipeline.beit3.inference import Inference
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

TOKENS = 128  # mean tokens per part in a forward pass; bounds memory


class TextReader(Splitter):
    """Tokenises texts and splits them into at most `chunks` parts of `max_tokens` ids."""

    def __init__(
        self, tokenizer: Tokenizer | WordPieces | None, max_tokens: int, chunks: int
    ) -> None:
        self.tokenizer, self._max_tokens, self._most = tokenizer, max_tokens, chunks

    def split_texts(self, texts: Sequence[str]) -> list[SplitText]:
        if self.tokenizer is None:
            raise UserError(
                "beit3: pre-trained without text, so it cannot read any; run `alignrec pretrain` again"
            )
        split = []
        for ids in self.tokenizer.encode(texts):
            parts = split_text(ids, self._max_tokens, self._most)
            unknown = sum(int((part == UNK).sum()) for part in parts)
            split.append(SplitText(parts, [len(part) - 2 for part in parts], len(ids), unknown))
        return split


class PassInputs(NamedTuple):
    """Inputs of a pass: n items without text, or n parts of texts."""

    items: np.ndarray  # int64 [n], item of each part
    tokens: Tensor | None  # int64 [tokens], all parts concatenated
    lengths: list[int]  # tokens of each part, 0 without a text

    def passes(self) -> Iterator[PassInputs]:
        """Yield groups of at most TOKENS tokens per part on average."""
        ends, most = np.cumsum(self.lengths), TOKENS * len(self.lengths)
        start = 0
        while start < len(self.lengths):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
            tokens = None if self.tokens is None else self.tokens[before : int(ends[stop - 1])]
            yield PassInputs(self.items[start:stop], tokens, self.lengths[start:stop])
            start = stop


class BEiT3Batch(NamedTuple):
    """Decoded images and tokenised texts of B items."""

    pixels: Tensor | None  # uint8 [B, S, S, 3]
    chunks: Chunks | None  # parts of the texts
    groups: list[PassInputs]  # groups of parts, or of items without text


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
        positions, vocab = network.config.positions - FIRST_POSITION, network.config.vocab
        super().__init__(tokenizer, min(max_tokens or positions, positions), chunks)
        self._device = device_of(network)
        self._network = Inference(network.eval(), precision)
        self._whitening = (
            None if whitening is None else [torch.from_numpy(x).to(self._device) for x in whitening]
        )
        if tokenizer is not None and tokenizer.vocab > vocab:
            raise UserError(
                f"beit3: the tokenizer has {tokenizer.vocab:,} ids, and the network {vocab:,}"
            )
        self.width = network.config.width if whitening is None else whitening.map.shape[1]

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> BEiT3Batch:
        pixels = None
        if images is not None:
            pixels = pin_memory(
                torch.from_numpy(decode_squares(images, self._network.config.image))
            )
        if texts is None:
            n = len(images or ())
            return BEiT3Batch(pixels, None, [PassInputs(np.arange(n), None, [0] * n)])
        chunks, groups = self.chunks(texts), []
        for group in chunks.groups():
            ids = [chunks.parts[i] for i in group]
            tokens = pin_memory(torch.from_numpy(np.concatenate(ids)))
            groups.append(PassInputs(chunks.owner[group], tokens, [len(x) for x in ids]))
        return BEiT3Batch(pixels, chunks, groups)

    @torch.inference_mode()
    def encode(self, prepared: BEiT3Batch) -> Tensor:
        pixels = None if prepared.pixels is None else move_to(prepared.pixels, self._device)
        groups = []  # CLS of each group's parts, [n, D]
        for group in prepared.groups:
            out = []
            for items, tokens, lengths in group.passes():
                at = move_to(torch.from_numpy(items), self._device)
                image = None if pixels is None else normalise_pixels(pixels[at])
                text = None if tokens is None else move_to(tokens, self._device)
                out.append(self._network.cls(image, text, lengths))
            groups.append(torch.cat(out))
        cls = (
            groups[0] if prepared.chunks is None else prepared.chunks.average_parts(groups)
        )  # [B, D]
        return cls if self._whitening is None else (cls - self._whitening[0]) @ self._whitening[1]


class ImageVectorCache:
    """Vectors of the catalogue's images, found by image hash."""

    def __init__(self, hashes: np.ndarray, parts: Sequence[np.ndarray]) -> None:
        """Index the image hashes, S16 [I], and the vectors of each image token, float32 [I, W_p] each."""
        self._order = np.argsort(hashes, kind="stable")
        self._hashes, self._parts = hashes[self._order], parts

    def look_up(self, images: Sequence[bytes], width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors, float32 [n, W], zeros for unknown images, and the rows of those, int64."""
        out = np.zeros((len(images), width), np.float32)
        if not len(self._hashes):
            return out, np.arange(len(images))
        wanted = digest_images(images)
        at = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        known = self._hashes[at] == wanted
        if known.any():
            out[known] = np.hstack([part[self._order[at[known]]] for part in self._parts])
        return out, np.flatnonzero(~known)


class MiniBatch(NamedTuple):
    """Image vectors, images to encode and tokenised texts of B items."""

    image: (
        Tensor | None
    )  # float32 [B, W], zeros for images that are not cached; None without images
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
        reading: Whitening | None = None,
        known: ImageVectorCache | None = None,
    ) -> None:
        positions = network.config.positions
        super().__init__(pieces, min(max_tokens or positions, positions), chunks)
        self._known = known or ImageVectorCache(np.zeros(0, "S16"), [])
        self._device, self._network = device_of(network), network.eval()
        self._reading = (
            None if reading is None else [torch.from_numpy(x).to(self._device) for x in reading]
        )
        self.width = network.summary_width if reading is None else reading.map.shape[1]

    @cached_property
    def _images(self) -> list[CNN | Descriptors]:
        return [
            CNN(),
            Descriptors(),
        ]  # only for images that are not cached, as loading takes a second

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> MiniBatch:
        image, new, parts = None, np.zeros(0, np.int64), list[Any]()
        # a network trained without images ignores them
        if images is not None and self._network.config.image_widths:
            vectors, new = self._known.look_up(images, sum(self._network.config.image_widths))
            image = pin_memory(torch.from_numpy(vectors))
            if len(new):
                parts = [
                    encoder.prepare([images[i] for i in new.tolist()], None)
                    for encoder in self._images
                ]
        chunks = None if texts is None else self.chunks(texts)
        padded = (
            (pad_rows([chunks.parts[i] for i in group]) for group in chunks.groups())
            if chunks
            else ()
        )
        ids = [
            (pin_memory(torch.from_numpy(own)), pin_memory(torch.from_numpy(padding)))
            for own, padding in padded
        ]
        return MiniBatch(image, new, parts, chunks, ids)

    @torch.inference_mode()
    def encode(self, prepared: MiniBatch) -> Tensor:
        image, chunks = (
            None if prepared.image is None else move_to(prepared.image, self._device),
            prepared.chunks,
        )
        if image is not None and prepared.parts:
            pairs = zip(self._images, prepared.parts, strict=True)
            image[prepared.new] = torch.cat(
                [encoder.encode(part).to(self._device) for encoder, part in pairs], 1
            )
        if image is None and chunks is None:
            raise UserError("beit3: pre-trained without images, so it needs a text")
        if chunks is None:
            summary = self._network.summary(image, None).float()
        else:
            summaries = []
            for group, texts in zip(chunks.groups(), prepared.ids, strict=True):
                inputs = (torch.from_numpy(chunks.owner[group]), *texts)
                owner, ids, padding = (move_to(x, self._device) for x in inputs)
                shown = None if image is None else image[owner]
                summaries.append(self._network.summary(shown, ids, padding).float())
            summary = chunks.average_parts(summaries)
        return (
            summary
            if self._reading is None
            else centre_halves(summary, self._reading[0]) @ self._reading[1]
        )


def digest_images(images: Sequence[bytes | None]) -> np.ndarray:
    """Return the first 16 bytes of each image's SHA-256, S16 [n]; a missing image hashes as empty."""
    return np.array([hashlib.sha256(image or b"").digest()[:16] for image in images], "S16")


def load_beit3(
    files: EncoderFiles, params: BEiT3Params, raw: bool, known: ImageVectorCache | None = None
) -> Encoder:
    """Load a network from untrusted files; vectors are raw CLS if `raw` is set or the files lack the map."""
    mapped = (
        params.whiten and not raw and files.whitening.is_file()
    )  # releases may not contain the map
    if not stored.is_mini(files):
        read = (
            stored.read_whitening(files, stored.read_config(files, BEiT3Config).width)
            if mapped
            else None
        )
        network = stored.load_network(files).to(pick_device())
        tokenizer = Tokenizer(files.tokenizer.read_bytes()) if files.tokenizer.is_file() else None
        return BEiT3Items(
            network, tokenizer, params.max_tokens, params.chunks, params.precision, read
        )
    if params.precision != "float32":
        raise UserError(
            f"beit3: mini encodes in float32, not {params.precision}; leave out beit3.precision"
        )
    mini = Mini(stored.read_config(files, MiniConfig))
    read = stored.read_whitening(files, mini.summary_width) if mapped else None
    mini.load_state_dict(load_file(files.weights), strict=True)
    return MiniItems(
        mini.to(pick_device()), load_pieces(files), params.max_tokens, params.chunks, read, known
    )


def load_pieces(files: EncoderFiles) -> WordPieces:
    return WordPieces(io.read_json(files.word_pieces)["pieces"])
