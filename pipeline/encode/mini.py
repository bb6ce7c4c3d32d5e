"""Items through BEiT3 `mini`: what `beit3` is where `pretrain.size` is mini.

Images go through the frozen encoders whose vectors are the image tokens; these and the text go through the network.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from torch import Tensor

from pipeline import io
from pipeline.beit3 import minilm
from pipeline.beit3.mini import Mini, MiniConfig, load_minilm
from pipeline.beit3.reading import centred
from pipeline.beit3.tokenizer import ENDLESS, pad
from pipeline.beit3.wordpieces import WordPieces
from pipeline.encode.base import Context
from pipeline.encode.chunks import Reading
from pipeline.encode.cnn import CNN
from pipeline.encode.cnn import load as load_cnn
from pipeline.encode.descriptors import Descriptors
from pipeline.errors import UserError
from pipeline.layout import EncoderFiles
from pipeline.ops.device import device_of, pick, pinned, sent
from pipeline.ops.whitening import Whitening


class Prepared(NamedTuple):
    """A batch of B items, decoded."""

    image: list[Any]
    """what each encoder of images prepares; none without images"""
    tokens: Tensor | None
    """int64 [B, T]"""
    padding: Tensor | None
    """bool [B, T]"""


class MiniItems:
    """The network with its tokenizer and the frozen encoders of images."""

    def __init__(
        self, network: Mini, pieces: WordPieces, max_tokens: int | None, reading: Whitening | None = None
    ) -> None:
        """Take a network on its device; without a map, the feature is the summary as it is."""
        self._device, self._network, self._pieces = device_of(network), network.eval(), pieces
        self._reading = None if reading is None else [torch.from_numpy(x).to(self._device) for x in reading]
        self._images: list[CNN | Descriptors] = [load_cnn(), Descriptors()] if network.config.image_widths else []
        most = network.config.positions
        self._max_tokens = min(max_tokens or most, most)
        self.width = network.summary_width if reading is None else reading.map.shape[1]
        self.flops = 0.0

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Return the number of tokens of each text that are read."""
        return self.reading(texts).read

    def reading(self, texts: Sequence[str]) -> Reading:
        """Return how much of each text is read."""
        there = np.array([len(ids) for ids in self._pieces.encode(texts, ENDLESS)], np.int64)
        return Reading(np.minimum(there, self._max_tokens), there)

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        """Decode and tokenise; a network that was trained without images ignores them."""
        image = [encoder.prepare(images, None) for encoder in self._images] if images is not None else []
        if texts is None:
            return Prepared(image, None, None)
        ids, padding = pad(self._pieces.encode(texts, self._max_tokens))
        return Prepared(image, pinned(torch.from_numpy(ids)), pinned(torch.from_numpy(padding)))

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        """Return the summary, read by the map where there is one: float32 [B, F]."""
        image = None
        if prepared.image:
            pairs = zip(self._images, prepared.image, strict=True)
            image = torch.cat([encoder.encode(part).to(self._device) for encoder, part in pairs], 1)
        tokens, padding = (None if x is None else sent(x, self._device) for x in (prepared.tokens, prepared.padding))
        present = image if image is not None else tokens
        if present is None:
            raise UserError("beit3: pre-trained without images, so it cannot read one alone; give a text")
        self.flops += flops(
            self._network.config, len(present), image is not None, 0 if tokens is None else tokens.shape[1]
        )
        summary = self._network.summary(image, tokens, padding).float()
        if self._reading is None:
            return summary
        mean, map_ = self._reading
        return centred(summary, mean) @ map_


def flops(c: MiniConfig, items: int, image: bool, tokens: int) -> float:
    """Return the operations of some items, padding included, without those of the frozen encoders of images."""
    n = len(c.image_widths) * image + tokens
    layer = 2 * n * (4 * c.width**2 + 2 * c.width * c.ffn) + 4 * n**2 * c.width
    return float(items * c.layers * layer)


def is_mini(files: EncoderFiles) -> bool:
    """Return whether what `pretrain` wrote is of this size."""
    return files.word_pieces.is_file()


def config(files: EncoderFiles) -> MiniConfig:
    """Read the network's shape."""
    given = io.read_json(files.config)
    return MiniConfig(**given | {"image_widths": tuple(given["image_widths"])})


def pieces(files: EncoderFiles) -> WordPieces:
    """Read the tokenizer."""
    return WordPieces(minilm.load().tokenizer, io.read_json(files.word_pieces)["pieces"])


def reading(files: EncoderFiles) -> Whitening:
    """Read how summaries are read; UserError if the file does not fit the network."""
    tensors = load_arrays(files.whitening)
    mean, map_ = tensors.get("mean"), tensors.get("map")
    width = 2 * config(files).width
    if mean is None or map_ is None or mean.shape != (width,) or map_.ndim != 2 or len(map_) != width:
        raise UserError(f"{files.whitening}: not how a mini of this width is read; run `alignrec pretrain` again")
    return Whitening(mean, map_)


def load(files: EncoderFiles, max_tokens: int | None, reading: Whitening | None) -> MiniItems:
    """Load what `pretrain` wrote."""
    network = Mini(config(files))
    network.load_state_dict(load_file(files.weights), strict=True)
    return MiniItems(network.to(pick()), pieces(files), max_tokens, reading)


def load_untrained(context: Context, max_tokens: int | None, reading: Whitening | None) -> MiniItems:
    """Return the network as it was before its first step."""
    network, own = Mini(config(context.files)), pieces(context.files)
    load_minilm(network, minilm.load().tensors, own.theirs.tolist())
    network.image.load_state_dict(load_file(context.files.start), strict=True)
    return MiniItems(network.to(pick()), own, max_tokens, reading)
