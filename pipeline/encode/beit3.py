"""BEiT3 encoder: CLS of one pass over image, text or both (B items, n items or parts of texts, D width)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save
from torch import Tensor

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import stored
from alignrec.pipeline.beit3.config import FIRST_POSITION, MiniConfig
from alignrec.pipeline.beit3.inference import Inference
from alignrec.pipeline.beit3.mini import Network, fit_halves
from alignrec.pipeline.beit3.network import HEADS, BEiT3
from alignrec.pipeline.beit3.tokenizer import Tokenizer
from alignrec.pipeline.encode import batching, mini
from alignrec.pipeline.encode.batching import Items
from alignrec.pipeline.encode.chunks import Chunks
from alignrec.pipeline.encode.params import MODALITIES, MOST_CHUNKS, BEiT3Params
from alignrec.pipeline.encode.registry import Encoder
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import EncoderFiles
from alignrec.pipeline.images.pixels import decode_squares, normalise_pixels
from alignrec.pipeline.ops import linalg
from alignrec.pipeline.ops.device import device_of, move_to, pick_device, pin_memory
from alignrec.pipeline.ops.linalg import Whitening

FIRST = 4096  # upper bound on items that the map of an untrained network is fitted to
TOKENS = 128  # average per part of a pass: long texts take memory


class Group(NamedTuple):
    """Inputs of a pass: n items without text, or n parts of texts."""

    items: np.ndarray  # int64 [n], item of each part
    tokens: Tensor | None  # int64 [tokens], all parts concatenated
    lengths: list[int]  # tokens of each part, 0 without a text

    def passes(self) -> Iterator[Group]:
        """Yield groups of at most TOKENS tokens per part on average."""
        ends, most = np.cumsum(self.lengths), TOKENS * len(self.lengths)
        start = 0
        while start < len(self.lengths):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
            tokens = None if self.tokens is None else self.tokens[before : int(ends[stop - 1])]
            yield Group(self.items[start:stop], tokens, self.lengths[start:stop])
            start = stop


class Prepared(NamedTuple):
    """Decoded batch of B items."""

    pixels: Tensor | None  # uint8 [B, S, S, 3]
    chunks: Chunks | None  # parts of the texts
    groups: list[Group]  # groups of parts, or of items without text


class BEiT3Items(mini.TextReader):
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
        self._whitening = None if whitening is None else [torch.from_numpy(x).to(self._device) for x in whitening]
        if tokenizer is not None and tokenizer.vocab > vocab:
            raise UserError(f"beit3: the tokenizer has {tokenizer.vocab:,} ids, and the network {vocab:,}")
        self.width = network.config.width if whitening is None else whitening.map.shape[1]

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        pixels = None
        if images is not None:
            pixels = pin_memory(torch.from_numpy(decode_squares(images, self._network.config.image)))
        if texts is None:
            n = len(images or ())
            return Prepared(pixels, None, [Group(np.arange(n), None, [0] * n)])
        chunks, groups = self.split_texts(texts), []
        for group in chunks.groups():
            ids = [chunks.parts[i] for i in group]
            tokens = pin_memory(torch.from_numpy(np.concatenate(ids)))
            groups.append(Group(chunks.owner[group], tokens, [len(x) for x in ids]))
        return Prepared(pixels, chunks, groups)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        pixels = None if prepared.pixels is None else move_to(prepared.pixels, self._device)
        groups = [self._cls_of(group, pixels) for group in prepared.groups]
        cls = groups[0] if prepared.chunks is None else prepared.chunks.average_parts(groups)  # [B, D]
        return cls if self._whitening is None else (cls - self._whitening[0]) @ self._whitening[1]

    def _cls_of(self, group: Group, pixels: Tensor | None) -> Tensor:
        """Return the CLS of each part, [n, D]; `pixels` covers the whole batch."""
        out = []
        for items, tokens, lengths in group.passes():
            image = None if pixels is None else normalise_pixels(pixels[move_to(torch.from_numpy(items), self._device)])
            text = None if tokens is None else move_to(tokens, self._device)
            out.append(self._network.cls(image, text, lengths))
        return torch.cat(out)


def load_tokenizer(own: EncoderFiles) -> Tokenizer | None:
    return Tokenizer(own.tokenizer.read_bytes()) if own.tokenizer.is_file() else None


def load_beit3(
    files: EncoderFiles, params: BEiT3Params, raw: bool = False, known: mini.KnownImages | None = None
) -> Encoder:
    """Load a network from untrusted files; vectors are raw CLS if `raw` is set or the files lack the map."""
    mapped = params.whiten and not raw and files.whitening.is_file()  # a release may lack the map
    if stored.is_mini(files):
        if params.precision != "float32":
            raise UserError(f"beit3: mini encodes in float32, not {params.precision}; leave out beit3.precision")
        return mini.load_mini(files, params.max_tokens, params.chunks, mini.read_map(files) if mapped else None, known)
    read = stored.read_whitening(files, stored.read_config(files).width) if mapped else None
    network = stored.load_network(files).to(pick_device())
    return BEiT3Items(network, load_tokenizer(files), params.max_tokens, params.chunks, params.precision, read)


def write_untrained(trained: EncoderFiles, to: EncoderFiles, seed: int) -> None:
    """Write a network with random weights and the trained one's shape; `mini` gets its initial weights."""
    _copy_vocabulary(trained, to)
    network: Network
    if stored.is_mini(trained):
        network = mini.start_network(trained)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = BEiT3(stored.read_config(trained))
    _write_network(network, to)


def write_official(trained: EncoderFiles, to: EncoderFiles) -> None:
    """Write the weights of `pretrain.init` before training; raises UserError if they were not kept."""
    if not trained.official.is_file():
        raise UserError(
            f"beit3-official: no {trained.official}; name official weights under pretrain.init, run `alignrec pretrain`"
        )
    _copy_vocabulary(trained, to)
    network = BEiT3(replace(stored.read_config(trained), codes=0, mlm=False))
    network.load_state_dict(load_file(trained.official), strict=True)
    _write_network(network, to)


def fit_map(encoder: Encoder, items: Items, batch_size: int, to: EncoderFiles) -> None:
    n = min(FIRST, len(items.ids))
    # an untrained network has no teachers, so its map is fitted to its own CLS
    encoded = batching.encode_items(encoder, *batching.texts_and_images(items.read(0, n, MODALITIES)), batch_size)
    vectors = encoded.vectors[encoded.has_image | encoded.has_text]
    fitted = fit_halves(vectors) if stored.is_mini(to) else linalg.fit_whitening(vectors)
    io.write_bytes(to.whitening, save_arrays(fitted._asdict()))


def _copy_vocabulary(trained: EncoderFiles, to: EncoderFiles) -> None:
    for name in ("tokenizer", "word_pieces"):
        if (source := getattr(trained, name)).is_file():
            io.write_bytes(getattr(to, name), source.read_bytes())


def _write_network(network: Network, to: EncoderFiles) -> None:
    # heads are for training only
    tensors = {k: x.cpu().contiguous() for k, x in network.state_dict().items() if not k.startswith(HEADS)}
    shape = network.config
    bare = replace(shape, codes=0, pieces=0) if isinstance(shape, MiniConfig) else replace(shape, codes=0, mlm=False)
    io.write_bytes(to.weights, save(tensors))
    io.write_json(to.config, asdict(bare))
