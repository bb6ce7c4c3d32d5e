"""Third-party models with a tower for images, for texts, or both.

Shared by their kinds: sanitised images and texts, and one vector per item from one or two.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor

from alignrec.pipeline.config.base import Positive
from alignrec.pipeline.encode.chunks import MOST, Chunked, Chunks, Reading, cut
from alignrec.pipeline.encode.origin import Pretrained
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.images.pixels import decoded

Join = Literal["mean", "concat"]
SIDE = 512  # of the largest images that networks read; larger JPEGs are decoded at a fraction of their size
LONGEST = 16
"""longer over shorter side of an image, beyond which only the middle is used: scaled by its shorter side, an image of
1 x 10,000 pixels would take gigabytes"""
SHORTEST = 8  # least pixels of the shorter side: processors mistake 1 or 3 pixels for channels
ENDLESS = 1_000_000  # tokens; a tokenizer that allows more does not know its network's limit
GREY, WORD = Image.new("RGB", (64, 64), "grey"), "a"


class OfHub(Pretrained, Chunked):
    """Settings of the kinds that load a repository of the Hub, or a folder laid out as one."""

    max_tokens: Annotated[int, Field(ge=3)] = 512
    """tokens that are read at a time, at most the network's own limit; chats and passes over text and image
    are cut there"""
    dim: Positive | None = None
    """number of leading columns that are kept of each vector, for networks trained so (Matryoshka)"""
    trust_remote_code: bool = False
    """whether Python code that comes with the model may run, with all your permissions"""


class Prepared(NamedTuple):
    """A batch of B items."""

    image: Any  # inputs of the image tower, None without images
    text: Any  # inputs of the text tower, None without texts
    parts: Chunks | None = None
    """chunks of the texts; `text` is then a list of inputs"""


class Towers:
    """An encoder with one or two towers, which a kind implements."""

    def __init__(
        self,
        reads: Sequence[str],
        join: Join = "mean",
        dim: int | None = None,
        room: int | None = None,
        most: int = MOST,
    ) -> None:
        """Encode an image and a word, to check the network and find its width; `dim` numbers are kept of each vector.

        A text tower reads `room` tokens at a time (None: unknown) and `most` chunks of a text. UserError for a `dim`
        that is too large, or `mean` of towers of unequal width.
        """
        self.reads, self.join, self.dim = tuple(reads), join, dim
        self.room, self.most = room, most
        self._lock = Lock()  # a tokenizer that cuts texts cannot be used by two threads at once
        self._widths: dict[str, int] = {}
        with torch.inference_mode():
            if "image" in self.reads:
                self._widths["image"] = self.image_vectors(self.image_inputs([GREY])).shape[1]
            if "text" in self.reads:
                self._widths["text"] = self.text_vectors(self.text_inputs([WORD])).shape[1]
        self.width = self._width()

    @property
    def halves(self) -> dict[str, int]:
        return self._widths if self.join == "concat" and len(self.reads) > 1 else {}

    def image_inputs(self, images: list[Image.Image]) -> Any:
        """Return inputs of the image tower for B images, on the CPU; called from several threads at a time."""
        raise NotImplementedError

    def text_inputs(self, texts: list[str]) -> Any:
        """Return inputs of the text tower for B texts, on the CPU; called from one thread at a time."""
        raise NotImplementedError

    def count(self, texts: list[str]) -> list[int]:
        """Return the tokens of each text, uncut; called from one thread at a time, and only if there is `room`."""
        raise NotImplementedError

    def image_vectors(self, inputs: Any) -> Tensor:
        """Return float32 [B, F]."""
        raise NotImplementedError

    def text_vectors(self, inputs: Any) -> Tensor:
        """Return float32 [B, F]."""
        raise NotImplementedError

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        image = None if images is None else self.image_inputs(open_images(images))
        if texts is None:
            return Prepared(image, None)
        with self._lock:
            if (parts := self._parts(texts)) is None:
                return Prepared(image, self.text_inputs(list(texts)))
            return Prepared(image, parts.inputs(self.text_inputs), parts)

    def reading(self, texts: Sequence[str]) -> Reading | None:
        with self._lock:
            parts = self._parts(texts)
        return None if parts is None else parts.reading()

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        image = None if prepared.image is None else self._cut(self.image_vectors(prepared.image))
        text = None
        if prepared.parts is not None:
            text = self._cut(prepared.parts.averaged([self.text_vectors(inputs) for inputs in prepared.text]))
        elif prepared.text is not None:
            text = self._cut(self.text_vectors(prepared.text))
        if len(self.reads) == 1:
            return next(vectors for vectors in (image, text) if vectors is not None)
        return joined([image, text], [self._widths["image"], self._widths["text"]], self.join)

    def _parts(self, texts: Sequence[str]) -> Chunks | None:
        return None if self.room is None else cut(texts, self.count, self.room, self.most)

    def _cut(self, vectors: Tensor) -> Tensor:
        return vectors if self.dim is None else vectors[:, : self.dim]

    def _width(self) -> int:
        narrowest = min(self._widths.values())
        if self.dim is not None and self.dim > narrowest:
            raise UserError(f"dim {self.dim} is more than the {narrowest} numbers of its vectors; give at most that")
        if self.dim is not None:
            self._widths = dict.fromkeys(self._widths, self.dim)
        if self.join == "mean" and len({*self._widths.values()}) > 1:
            raise UserError("join mean needs vectors of one width for image and text; take concat")
        return sum(self._widths.values()) if self.join == "concat" else next(iter(self._widths.values()))


def joined(halves: Sequence[Tensor | None], widths: Sequence[int], how: Join) -> Tensor:
    """Return one vector an item of those of its modalities, [B, W] each of length 1 or None: float32 [B, F].

    `how`: the mean of the present ones, or all concatenated, zero if absent.
    """
    units = [None if half is None else F.normalize(half.float()) for half in halves]
    present = [unit for unit in units if unit is not None]
    if how == "mean":
        return torch.stack(present).mean(dim=0)  # [1 or 2, B, F] -> [B, F]
    like = present[0]
    parts = [like.new_zeros(len(like), w) if unit is None else unit for unit, w in zip(units, widths, strict=True)]
    return torch.cat(parts, dim=1)


def open_images(images: Iterable[bytes]) -> list[Image.Image]:
    return [_bounded(decoded(image, SIDE)) for image in images]


def _bounded(image: Image.Image) -> Image.Image:
    width, height = image.size
    across, down = min(width, LONGEST * height), min(height, LONGEST * width)
    left, top = (width - across) // 2, (height - down) // 2
    image = image if (across, down) == image.size else image.crop((left, top, left + across, top + down))
    if (shorter := min(image.size)) >= SHORTEST:
        return image
    return image.resize((round(across * SHORTEST / shorter), round(down * SHORTEST / shorter)))


def silence_transformers() -> None:
    from transformers.utils import logging  # takes seconds

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def limit(tokenizer: Any, config: Any) -> int:
    text = getattr(config, "text_config", config)
    positions = int(getattr(text, "max_position_embeddings", None) or ENDLESS)
    if "roberta" in str(text.model_type) or text.model_type == "mpnet":
        positions -= int(text.pad_token_id) + 1  # they count from behind the padding's own
    return min(positions, int(tokenizer.model_max_length), ENDLESS)


def plain(tokenizer: Any) -> Callable[[str], str]:
    special = {str(token) for token in tokenizer.all_special_tokens}
    special |= {token.content for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if token.special}
    return broken({name for name in special if len(name) > 1})


def broken(controls: set[str]) -> Callable[[str], str]:
    if not controls:
        return str
    longest_first = sorted(controls, key=lambda word: (-len(word), word))
    return partial(
        re.compile("|".join(map(re.escape, longest_first))).sub, lambda match: f"{match[0][0]} {match[0][1:]}"
    )
