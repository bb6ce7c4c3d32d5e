"""Third-party encoders with an image tower, a text tower, or both."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from alignrec.pipeline.encoders.chunks import (
    LETTERS_PER_TOKEN,
    Chunks,
    Reading,
    Splitter,
    SplitText,
    Tokenized,
    batch_texts,
    locate_by_words,
    split_tokenized,
)
from alignrec.pipeline.encoders.params import MOST_CHUNKS
from alignrec.pipeline.encoders.settings import Join
from alignrec.pipeline.images.decode import decode_rgb
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg.device import move_to, pick_device, pin_memory

# largest input size of networks; larger JPEGs are decoded at reduced size
MAX_INPUT_SIDE_PIXELS = 512
# aspect ratio beyond which an image is cropped to its middle: scaled by its shorter side, an image
# of 1 x 10,000 pixels would take gigabytes
MAX_ASPECT = 16
MIN_SIDE = 8  # pixels of the shorter side: processors mistake 1 or 3 pixels for channels
ENDLESS = 1_000_000  # tokens; a tokenizer's larger limit means that its limit is unknown
FIRST = itemgetter(0)
GREY, WORD = Image.new("RGB", (64, 64), "grey"), "a"


class Prepared(NamedTuple):
    """Inputs of the towers for B items."""

    image: Any  # inputs of the image tower, None without images
    text: list[Any]  # inputs of the text tower, one per pass, empty without texts
    chunks: Chunks | None  # None without texts


class Towers(Splitter):
    """Base of encoders with one or two towers; subclasses define the attributes below.

    Images are prepared in several threads at once, texts in one at a time.
    """

    image_inputs: Callable[[list[Image.Image]], Any]  # B images -> inputs on the CPU
    text_inputs: Callable[[list[Any]], Any]  # B parts of texts -> inputs on the CPU
    image_vectors: Callable[[Any], Tensor]  # inputs on the device -> float32 [B, F]
    text_vectors: Callable[[Any], Tensor]
    tokenizer: Any = None  # a tokenizer of transformers, or of tokenizers
    break_controls: Callable[[str], str]  # from `control_breaker`

    def __init__(
        self,
        reads: Sequence[str],
        join: Join = "mean",
        dim: int | None = None,  # leading columns of each vector to keep
        room: int | None = None,  # tokens per pass of the text tower; None: unknown
        most: int = MOST_CHUNKS,  # maximum chunks per text
    ) -> None:
        """Measure the width on a test input; raises UserError if `dim` is too large or `mean` joins
        unequal widths.
        """
        self.reads, self.join, self.dim, self.room, self.most = tuple(reads), join, dim, room, most
        self._lock = Lock()  # tokenizers that truncate are not thread-safe
        widths: dict[str, int] = {}
        with torch.inference_mode():
            if "image" in self.reads:
                widths["image"] = self.image_vectors(self.send(self.image_inputs([GREY]))).shape[1]
            if "text" in self.reads:
                (split,) = self.split_texts([WORD])
                inputs = self.send(self.text_inputs(split.parts))
                widths["text"] = self.text_vectors(inputs).shape[1]
        if dim is not None and dim > (narrowest := min(widths.values())):
            raise UserError(
                f"dim {dim} is more than the {narrowest} numbers of its vectors; give at most that"
            )
        self._widths = {modality: dim or width for modality, width in widths.items()}
        if join == "mean" and len({*self._widths.values()}) > 1:
            raise UserError("join mean needs vectors of one width for image and text; take concat")
        # columns by modality
        self.halves = self._widths if join == "concat" and len(self.reads) > 1 else {}
        self.width = sum(self.halves.values()) or self._widths[self.reads[0]]

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        image = None
        if images is not None:
            image = map_tensors(self.image_inputs(open_images(images)), pin_memory)
        if texts is None:
            return Prepared(image, [], None)
        with self._lock:
            chunks = self.chunks(texts)
            passes = []
            for group in chunks.groups():
                inputs = self.text_inputs([chunks.parts[i] for i in group])
                passes.append(map_tensors(inputs, pin_memory))
            return Prepared(image, passes, chunks)

    def reading(self, texts: Sequence[str]) -> Reading | None:
        if self.room is None:
            return None
        with self._lock:
            return super().reading(texts)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        vectors: dict[str, Tensor] = {}
        if prepared.image is not None:
            vectors["image"] = self.image_vectors(self.send(prepared.image))[:, : self.dim]
        if prepared.chunks is not None:
            parts = [self.text_vectors(self.send(inputs)) for inputs in prepared.text]
            vectors["text"] = prepared.chunks.average_parts(parts)[:, : self.dim]
        if len(self.reads) == 1:
            return next(iter(vectors.values()))

        units = {modality: F.normalize(x.float()) for modality, x in vectors.items()}  # [B, W]
        if self.join == "mean":
            return torch.stack([*units.values()]).mean(dim=0)  # [1 or 2, B, F] -> [B, F]
        first = next(iter(units.values()))
        halves = []
        for modality in ("image", "text"):
            if modality in units:
                halves.append(units[modality])
            else:
                halves.append(first.new_zeros(len(first), self._widths[modality]))
        return torch.cat(halves, dim=1)

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text, untruncated and without special tokens."""
        backend = fast_tokenizer(self.tokenizer)
        if backend is None:
            rows = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            return list(rows)
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def send(self, inputs: Any) -> Any:
        device = pick_device()
        return map_tensors(inputs, lambda x: move_to(x, device))

    def split_texts(self, texts: Sequence[str]) -> list[SplitText]:
        if self.room is None:  # texts stay whole, and their tokens are not counted
            return [SplitText([text], [0], 0, 0) for text in texts]

        backend = fast_tokenizer(self.tokenizer)
        unknown = unknown_id(self.tokenizer)
        split: dict[str, SplitText] = {}
        for batch in batch_texts(texts):
            plain = {text: self.break_controls(text) for text in batch}
            short = [text for text in batch if len(text) <= LETTERS_PER_TOKEN * self.room]
            if backend is not None:
                encodings = backend.encode_batch(
                    [plain[text] for text in short], add_special_tokens=False
                )
                for text, encoding in zip(short, encodings, strict=True):
                    split[text] = self._split_encoded(plain[text], encoding, unknown)
            for text in batch:
                if text not in split:
                    located = locate_by_words(plain[text], self.tokenize, unknown)
                    split[text] = split_tokenized(located, self.room, self.most)
        return [split[text] for text in texts]

    def _split_encoded(self, text: str, encoding: Any, unknown: int | None) -> SplitText:
        assert self.room
        ids = np.array(encoding.ids, np.int64)
        is_unknown = np.equal(ids, -1 if unknown is None else unknown)
        if len(ids) <= self.room:
            return SplitText([text], [len(ids)], len(ids), int(is_unknown.sum()))
        starts = np.fromiter(map(FIRST, encoding.offsets), np.int64, len(ids))
        located = Tokenized(text, np.maximum.accumulate(starts), is_unknown)
        return split_tokenized(located, self.room, self.most)


def open_images(images: Iterable[bytes]) -> list[Image.Image]:
    """Decode images, cropped to their middle beyond MAX_ASPECT and enlarged below MIN_SIDE."""
    opened = []
    for file in images:
        image = decode_rgb(file, MAX_INPUT_SIDE_PIXELS)
        width, height = image.size
        across = min(width, MAX_ASPECT * height)
        down = min(height, MAX_ASPECT * width)
        if (across, down) != image.size:
            left = (width - across) // 2
            top = (height - down) // 2
            image = image.crop((left, top, left + across, top + down))

        shorter = min(image.size)
        if shorter < MIN_SIDE:
            enlarged = (round(across * MIN_SIDE / shorter), round(down * MIN_SIDE / shorter))
            image = image.resize(enlarged)
        opened.append(image)
    return opened


def map_tensors(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply `change` to a tensor, or to each tensor of a mapping."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    return {name: change(x) if isinstance(x, Tensor) else x for name, x in inputs.items()}


def silence_transformers() -> None:
    from transformers.utils import logging  # takes seconds

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def longest_input(tokenizer: Any, config: Any) -> int:
    """Return the tokens that a model of transformers reads per pass, special tokens included."""
    text = getattr(config, "text_config", config)
    positions = int(getattr(text, "max_position_embeddings", None) or ENDLESS)
    if "roberta" in str(text.model_type) or text.model_type == "mpnet":
        positions -= int(text.pad_token_id) + 1  # positions start after the padding id
    return min(positions, int(tokenizer.model_max_length), ENDLESS)


def fast_tokenizer(tokenizer: Any) -> Tokenizer | None:
    """Return the tokenizer of `tokenizers` behind one of transformers, None if it has none.

    It truncates and pads nothing until the next call of the other, which sets both.
    """
    # transformers' objects for each text take as long again as tokenising it
    backend = tokenizer
    if not isinstance(tokenizer, Tokenizer):
        backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return backend


def unknown_id(tokenizer: Any) -> int | None:
    """Return the id for characters outside the vocabulary."""
    if not isinstance(tokenizer, Tokenizer):
        return getattr(tokenizer, "unk_token_id", None)

    names = [getattr(tokenizer.model, "unk_token", None), "[UNK]", "<unk>"]
    ids = [tokenizer.token_to_id(name) for name in names if name]
    return next((number for number in ids if number is not None), None)


def control_breaker(tokenizer: Any, controls: Iterable[str] = ()) -> Callable[[str], str]:
    """Return a function that inserts a space after the first character of each control token in a
    text.
    """
    special = {*controls, *map(str, getattr(tokenizer, "all_special_tokens", ()))}
    for token in getattr(tokenizer, "added_tokens_decoder", {}).values():
        if token.special:
            special.add(token.content)
    words = [word for word in special if len(word) > 1]
    if not words:
        return str

    # a token may be a prefix of another
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return partial(pattern.sub, lambda match: f"{match[0][0]} {match[0][1:]}")
