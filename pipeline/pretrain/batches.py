"""The task of one pre-training, and its batches on the device.

Letters: B batch, P patches, T text ids.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.beit3.tokenizer import pad
from pipeline.images import pixels
from pipeline.pretrain import corpus as data
from pipeline.pretrain.corpus import IMAGE_MASK, TEXT_ONLY, Corpus, Rates
from pipeline.pretrain.losses import NetworkInputs, Step
from pipeline.pretrain.params import HELD_OUT, MOST_HELD_OUT, Pretrain
from pipeline.seeds import seed_for


@dataclass(frozen=True)
class Task:
    """Inputs of a training."""

    corpus: Corpus
    codes: np.ndarray  # int [n, P], visual tokens of `corpus.pixels`
    mask_id: int
    params: Pretrain
    seed: int
    device: torch.device
    share_held_out: float = HELD_OUT
    target: np.ndarray | None = None  # float32 [I, W], see `frozen.target`; None: no teachers

    def move(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(self.device)

    @property
    def rates(self) -> Rates:
        return Rates(IMAGE_MASK, self.params.text_mask, TEXT_ONLY, self.params.hide)

    @cached_property
    def train(self) -> np.ndarray:
        return np.setdiff1d(self.corpus.usable, self.held_out)

    @cached_property
    def held_out(self) -> np.ndarray:
        order = np.random.default_rng(seed_for(self.seed, "held out")).permutation(self.corpus.usable)
        return np.sort(order[: min(round(self.share_held_out * len(order)), MOST_HELD_OUT)])


def batch(task: Task, items: np.ndarray, rates: Rates, seed: int) -> Step:
    """Draw the masks of items int64 [B], each from the seed and its number, and move all to the device."""
    inputs, ids, has_text = _inputs(task, items)
    corpus, patches = task.corpus, task.codes.shape[1]
    rngs = data.generators(items, seed)
    has_image = corpus.row[items] >= 0
    masks = data.draw_masks(ids, has_image, has_text, patches, rates, rngs)
    codes = np.zeros((len(items), patches), np.int64)
    codes[has_image] = task.codes[corpus.row[items][has_image]]
    move = task.move
    return Step(
        inputs._replace(padding=inputs.padding | move(masks.no_text)[:, None], no_image=move(masks.no_image)),
        move(codes),
        move(masks.patches),
        move(masks.tokens),
        None if task.target is None else move(task.target[items]),
    )


def _inputs(task: Task, items: np.ndarray) -> tuple[NetworkInputs, np.ndarray, np.ndarray]:
    """Return the inputs with nothing hidden, the ids, int64 [B, T], and which items have a text, bool [B]."""
    corpus, move = task.corpus, task.move
    texts = [corpus.texts[i] for i in items]
    ids, padding = pad(texts)
    has_text = np.array([len(text) > 2 for text in texts], bool)
    has_image = corpus.row[items] >= 0
    image = np.zeros((len(items), *corpus.pixels.shape[1:]), corpus.pixels.dtype)
    image[has_image] = corpus.pixels[corpus.row[items][has_image]]
    padding |= ~has_text[:, None]
    read = pixels.normalised(image) if image.dtype == np.uint8 else torch.from_numpy(image)
    return (NetworkInputs(read.to(task.device), move(ids), move(padding), move(~has_image)), ids, has_text)
