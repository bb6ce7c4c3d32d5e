"""A CLIP trained on the images and texts of a dataset, as a baseline of BEiT3. I items, W width."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from open_clip import CLIP, ClipLoss, CLIPTextCfg, CLIPVisionCfg, SimpleTokenizer
from torch import Tensor, nn
from tqdm import trange

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.minilm import WORD_START, initialise_words
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.stopping import learning_rate, plan_ending
from alignrec.pipeline.images.decode import decode_all, normalise_pixels
from alignrec.pipeline.linalg.device import pick_device
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

SIDE = 48  # pixels; this and the next as in BEiT3 of size small
PATCH = 8  # pixels
WIDTH = 128
LAYERS = 3
HEAD_WIDTH = 32
MAX_TOKENS = 128
WORD_END = "</w>"  # suffix of pieces that end a word
MAX_CHARACTERS = 64 * MAX_TOKENS  # the tokenizer takes hours for very long words
BATCH_SIZE = 16
PEAK_RATE = 1e-3
ITEMS_PER_BATCH = 256  # that are encoded


@cache
def load_tokenizer() -> Any:
    return SimpleTokenizer(context_length=MAX_TOKENS)


def network(vocabulary: int, length: int) -> Any:
    """Return an untrained CLIP for texts of at most `length` tokens."""
    vision = CLIPVisionCfg(
        layers=LAYERS, width=WIDTH, head_width=HEAD_WIDTH, patch_size=PATCH, image_size=SIDE
    )
    text = CLIPTextCfg(length, vocabulary, width=WIDTH, heads=WIDTH // HEAD_WIDTH, layers=LAYERS)
    return CLIP(WIDTH, vision, text).to(pick_device())


def encode(clip: Any, pixels: np.ndarray, ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return unit-length vectors of images and of texts, [n, W] each."""
    image = clip.encode_image(normalise_pixels(pixels).to(pick_device()), normalize=True)
    return image, clip.encode_text(torch.from_numpy(ids).to(pick_device()), normalize=True)


def start_from_words(clip: Any, vocabulary: np.ndarray) -> None:
    """Initialise pieces as those of BEiT3 of size small are: by MiniLM's words.

    `vocabulary` has the tokenizer's ids of the pieces in use.
    """
    decoder = load_tokenizer().decoder
    pieces = []
    for piece in (decoder[number] for number in vocabulary.tolist()):
        is_word = piece.endswith(WORD_END)
        pieces.append(f"{WORD_START * is_word}{piece.removesuffix(WORD_END)}")

    text = SimpleNamespace(text_embed=clip.token_embedding)
    initialise_words(
        cast(BEiT3, SimpleNamespace(beit3=text, config=SimpleNamespace(width=WIDTH))), pieces
    )


def train(clip: Any, pixels: np.ndarray, ids: np.ndarray, steps: int, seed: int) -> None:
    """Train in place on pairs of pixels and token ids."""
    optimizer = torch.optim.AdamW(clip.parameters(), PEAK_RATE, (0.9, 0.98), weight_decay=0.05)
    contrast = ClipLoss()
    rng = np.random.default_rng(seed)
    ending = plan_ending([], steps, patience=0)
    for step in trange(steps, unit="step"):
        batch = np.sort(rng.choice(len(ids), min(BATCH_SIZE, len(ids)), replace=False))
        loss = contrast(*encode(clip, pixels[batch], ids[batch]), clip.logit_scale.exp())
        optimizer.param_groups[0]["lr"] = learning_rate(step, ending, PEAK_RATE)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(clip.parameters(), 3.0)
        optimizer.step()


def trained_clip(layout: Layout, steps: int, seed: int = 0) -> np.ndarray:
    """Train CLIP on a dataset and return vectors of images and texts, joined, float32 [I, 2 W]."""
    column = io.read_table(layout.items, schemas.ITEMS, ["text"])["text"]
    texts = [text[:MAX_CHARACTERS] for text in column.to_pylist()]
    has_text = np.array([bool(text.strip()) for text in texts])
    tokens = load_tokenizer()(texts).numpy()  # int64 [I, T], padded with 0
    # CLIP pools at the largest id, the end of the text, which stays the largest as `unique` sorts;
    # no token attends to later ones, so padding is cut
    tokens = tokens[:, : tokens.argmax(axis=1).max() + 1]
    vocabulary, ids = np.unique(tokens, return_inverse=True)

    torch.manual_seed(seed_for("clip", layout.dataset, seed))
    clip = network(len(vocabulary), tokens.shape[1])
    start_from_words(clip, vocabulary)
    torch.set_num_threads(1)  # the order of summation depends on it
    with TemporaryDirectory() as folder:
        row, pixels = decode_all(layout.images, SIDE, Path(folder) / "pixels.npy")
        pairs = np.flatnonzero(has_text & (row >= 0))
        train(clip.train(), pixels[row[pairs]], ids[pairs], steps, seed)
        return encode_items(clip, pixels, row, ids, has_text)


@torch.inference_mode()
def encode_items(
    clip: Any, pixels: np.ndarray, row: np.ndarray, ids: np.ndarray, has_text: np.ndarray
) -> np.ndarray:
    """Return vectors of images and texts, float32 [I, 2 W], with zeros for what an item lacks."""
    clip.eval()
    vectors = np.zeros((len(ids), 2 * WIDTH), np.float32)
    n_batches = max(1, len(ids) // ITEMS_PER_BATCH)
    for items in np.array_split(np.arange(len(ids)), n_batches):
        image_vectors, text_vectors = encode(clip, pixels[row[items].clip(0)], ids[items])
        joined = torch.cat([image_vectors, text_vectors], 1).cpu().numpy()
        has_content = np.repeat([row[items] >= 0, has_text[items]], WIDTH, axis=0).T
        vectors[items] = joined * has_content
    return vectors
