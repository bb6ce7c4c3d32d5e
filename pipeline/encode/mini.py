"""Encoder of BEiT3 `mini`, whose image tokens are vectors of frozen encoders (B items per batch, I in all, W width)."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import minilm, stored
from alignrec.pipeline.beit3.mini import Mini, centre_halves, copy_minilm
from alignrec.pipeline.beit3.minilm import WordPieces
from alignrec.pipeline.beit3.tokenizer import UNK, Tokenizer, pad_rows, split_text
from alignrec.pipeline.encode.chunks import Chunks, Reading
from alignrec.pipeline.encode.cnn import CNN, load_cnn
from alignrec.pipeline.encode.descriptors import Descriptors
from alignrec.pipeline.encode.params import IMAGE_TOKENS
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import EncoderFiles, Layout
from alignrec.pipeline.ops.device import device_of, move_to, pick_device, pin_memory
from alignrec.pipeline.ops.linalg import Whitening


class Prepared(NamedTuple):
    """Decoded batch of B items."""

    image: Tensor | None  # float32 [B, W], zeros for images that are not cached; None without images
    new: np.ndarray  # int64, rows of images that are not cached
    parts: list[Any]  # images that are not cached, prepared for each image encoder
    chunks: Chunks | None  # parts of the texts
    ids: list[tuple[Tensor, Tensor]]  # of each group of parts: int64 [<= B, T], and padding, bool


def hash_images(images: Sequence[bytes | None]) -> np.ndarray:
    """Return the first 16 bytes of each image's SHA-256, S16 [n]; a missing image hashes as empty."""
    return np.array([hashlib.sha256(image or b"").digest()[:16] for image in images], "S16")


class KnownImages:
    """Vectors of the catalogue's images, found by image hash."""

    def __init__(self, hashes: np.ndarray, parts: Sequence[np.ndarray]) -> None:
        """Index the image hashes, S16 [I], and the vectors of each image token, float32 [I, W_p] each."""
        self._order = np.argsort(hashes, kind="stable")
        self._hashes, self._parts = hashes[self._order], parts

    def find_rows(self, images: Sequence[bytes]) -> np.ndarray:
        """Return the row of each image, int64 [n], -1 if unknown."""
        if not len(self._hashes):
            return np.full(len(images), -1)
        wanted = hash_images(images)
        at = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return np.where(self._hashes[at] == wanted, self._order[at], -1)

    def read_vectors(self, rows: np.ndarray, width: int) -> np.ndarray:
        """Return float32 [n, W], zeros for negative rows."""
        out, there = np.zeros((len(rows), width), np.float32), rows >= 0
        if there.any():
            out[there] = np.hstack([part[rows[there]] for part in self._parts])
        return out


class TextReader:
    """Splits texts into at most `chunks` parts of `max_tokens` ids."""

    def __init__(self, tokenizer: Tokenizer | WordPieces | None, max_tokens: int, chunks: int) -> None:
        self.tokenizer, self._max_tokens, self._most = tokenizer, max_tokens, chunks

    def reading(self, texts: Sequence[str]) -> Reading:
        chunks = self.split_texts(texts)
        return chunks.reading([int((ids == UNK).sum()) for ids in chunks.parts])

    def split_texts(self, texts: Sequence[str]) -> Chunks:
        if self.tokenizer is None:
            raise UserError("beit3: pre-trained without text, so it cannot read any; run `alignrec pretrain` again")
        ids = self.tokenizer.encode(texts)
        parts = [split_text(own, self._max_tokens, self._most) for own in ids]
        owner = np.repeat(np.arange(len(ids)), [len(own) for own in parts])
        flat = [part for own in parts for part in own]
        tokens = np.array([len(part) - 2 for part in flat], np.int64)
        return Chunks(flat, owner, tokens, np.array([len(own) for own in ids], np.int64))


class MiniItems(TextReader):
    """BEiT3 `mini` with its tokenizer and the frozen image encoders."""

    def __init__(
        self,
        network: Mini,
        pieces: WordPieces,
        max_tokens: int | None,
        chunks: int,
        reading: Whitening | None = None,
        known: KnownImages | None = None,
    ) -> None:
        positions = network.config.positions
        super().__init__(pieces, min(max_tokens or positions, positions), chunks)
        self._known, self._device, self._network = known, device_of(network), network.eval()
        self._reading = None if reading is None else [torch.from_numpy(x).to(self._device) for x in reading]
        self._images: list[CNN | Descriptors] = [load_cnn(), Descriptors()] if network.config.image_widths else []
        self.width = network.summary_width if reading is None else reading.map.shape[1]

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        image, new, parts = None, np.zeros(0, np.int64), list[Any]()
        # a network trained without images ignores them
        if images is not None and self._images:
            rows = self._known.find_rows(images) if self._known else np.full(len(images), -1)
            width = sum(self._network.config.image_widths)
            there = self._known.read_vectors(rows, width) if self._known else np.zeros((len(images), width), np.float32)
            image = pin_memory(torch.from_numpy(there))
            new = np.flatnonzero(rows < 0)
            parts = [encoder.prepare([images[i] for i in new.tolist()], None) for encoder in self._images if len(new)]
        chunks = None if texts is None else self.split_texts(texts)
        padded = (pad_rows([chunks.parts[i] for i in group]) for group in chunks.groups()) if chunks else ()
        ids = [(pin_memory(torch.from_numpy(own)), pin_memory(torch.from_numpy(padding))) for own, padding in padded]
        return Prepared(image, new, parts, chunks, ids)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        image, chunks = None if prepared.image is None else move_to(prepared.image, self._device), prepared.chunks
        if image is not None and prepared.parts:
            pairs = zip(self._images, prepared.parts, strict=True)
            image[prepared.new] = torch.cat([encoder.encode(part).to(self._device) for encoder, part in pairs], 1)
        if image is None and chunks is None:
            raise UserError("beit3: pre-trained without images, so it needs a text")
        if chunks is None:
            summary = self._network.summary(image, None).float()
        else:
            owners = (move_to(torch.from_numpy(chunks.owner[group]), self._device) for group in chunks.groups())
            summaries = [
                self._network.summary(
                    None if image is None else image[owner], move_to(ids, self._device), move_to(padding, self._device)
                ).float()
                for owner, (ids, padding) in zip(owners, prepared.ids, strict=True)
            ]
            summary = chunks.average_parts(summaries)
        return summary if self._reading is None else centre_halves(summary, self._reading[0]) @ self._reading[1]


def load_pieces(files: EncoderFiles) -> WordPieces:
    return WordPieces(minilm.load().tokenizer, io.read_json(files.word_pieces)["pieces"])


def read_map(files: EncoderFiles) -> Whitening:
    return stored.read_whitening(files, 2 * stored.read_mini_config(files).width)


def load_mini(
    files: EncoderFiles,
    max_tokens: int | None,
    chunks: int,
    reading: Whitening | None,
    known: KnownImages | None = None,
) -> MiniItems:
    network = Mini(stored.read_mini_config(files))
    network.load_state_dict(load_file(files.weights), strict=True)
    return MiniItems(network.to(pick_device()), load_pieces(files), max_tokens, chunks, reading, known)


def start_network(files: EncoderFiles) -> Mini:
    network = Mini(stored.read_mini_config(files))
    copy_minilm(network, minilm.load().tensors, load_pieces(files).theirs.tolist())
    network.image.load_state_dict(load_file(files.start), strict=True)
    return network


def known_images(layout: Layout) -> KnownImages:
    shards = io.shards(layout.images, "images")
    hashes = [
        hash_images(table["image"].to_pylist())
        for path in shards
        for table in io.read_slices(path, schemas.IMAGES, ["image"], io.PART)
    ]
    return KnownImages(np.concatenate(hashes), [io.map_features(layout.features(name)) for name in IMAGE_TOKENS])
