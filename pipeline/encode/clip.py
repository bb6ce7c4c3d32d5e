"""CLIP trained here, on the dataset's own pairs of image and text: the contrastive baseline of pre-training.

Network, tokenizer and loss are open_clip's. Its 49,408 tokens are reduced to those that the catalogue's texts have.
With `distill` it learns from BEiT3's teachers, as in `pretrain`: the joint vector of frozen encoders is regressed from
image and text, concatenated, and the feature is the output of that map.

B items, S image side, T tokens a text, V tokens in the vocabulary, W width.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

import schemas
from pipeline import io
from pipeline.encode import batching
from pipeline.encode.base import Context, Progress, Spec
from pipeline.encode.chunks import MOST, Chunks, Reading, Remembered, cut
from pipeline.encode.cnn import CNN_LITE
from pipeline.encode.contrast import HEAD, ClipParams, Pairs, train
from pipeline.encode.minilm import MINILM
from pipeline.encode.tfidf import TFIDF
from pipeline.encode.towers import joined
from pipeline.errors import UserError
from pipeline.images.pixels import decode_all, normalised, squares
from pipeline.ops import joining
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.device import device_of, one_thread, pick, pinned, sent
from pipeline.ops.held_out import split
from pipeline.ops.joining import IMAGE, POWER, WIDTH, Block
from pipeline.ops.rows import unit_rows
from pipeline.ops.whitening import Whitening, fit_pca
from pipeline.seeds import seed_for

LETTERS = 64
"""letters per token that are tokenised: the rest is cut anyway, and one endless word takes hours"""
EVERY = 100  # steps between checkpoints
VOCABULARY, MEAN, MAP = "vocabulary", "reading.mean", "reading.map"
"""names of the tokens, and of the map to the teachers, among the weights"""
TEACHERS: dict[str, Spec[Any]] = {"minilm": MINILM, "cnn": CNN_LITE, "tfidf": TFIDF}


class Words:
    """open_clip's tokenizer, reduced to a vocabulary, int64 [V], ascending."""

    def __init__(self, max_tokens: int, vocabulary: Tensor | None = None) -> None:
        from open_clip import SimpleTokenizer  # takes seconds

        self._tokenizer, self._max_tokens = SimpleTokenizer(), max_tokens
        self._vocabulary = np.zeros(0, np.int64) if vocabulary is None else vocabulary.numpy()

    def tokens(self, text: str) -> list[int]:
        start, end = self._tokenizer.all_special_ids
        return [start, *self._inner(text[: LETTERS * self._max_tokens])[: self._max_tokens - 2], end]

    def count(self, texts: list[str]) -> list[int]:
        return [len(self._inner(text)) for text in texts]

    def _inner(self, text: str) -> list[int]:
        start, _ = self._tokenizer.all_special_ids
        return [token for token in self._tokenizer.encode(text) if token < start]

    def ids(self, texts: Sequence[str], longest: int) -> np.ndarray:
        """Return places in the vocabulary, from 1: int64 [B, longest]; padding and unknown tokens are 0."""
        ids = np.zeros((len(texts), longest), np.int64)
        for row, text in enumerate(texts):
            tokens = np.array(self.tokens(text))
            place = np.searchsorted(self._vocabulary, tokens)
            known = self._vocabulary[place.clip(max=len(self._vocabulary) - 1)] == tokens
            ids[row, : len(tokens)] = np.where(known, place + 1, 0)
        return ids


class Prepared(NamedTuple):
    """A batch of B items."""

    pixels: Tensor | None  # uint8 [B, S, S, 3]
    ids: list[Tensor]  # of parts of the texts, int64 [<= B, T] each; empty without texts
    parts: Chunks | None  # the parts of the texts, None without texts


class Clip:
    """The trained network with its tokenizer: [image, text], each of length 1, or zero if absent."""

    def __init__(self, network: Any, words: Words, most: int = MOST, reading: Whitening | None = None) -> None:
        self._reading = None if reading is None else [torch.from_numpy(x).to(device_of(network)) for x in reading]
        self._network, self._words, self._most = network.eval(), words, most
        self._count = Remembered(words.count)
        self._longest: int = network.context_length
        self._half = int(network.text_projection.shape[1])
        self.width, self.flops = 2 * self._half if reading is None else reading.map.shape[1], 0.0

    @property
    def halves(self) -> dict[str, int]:
        return {} if self._reading else {"image": self._half, "text": self._half}

    def prepare(self, images: Sequence[bytes] | None, texts: Sequence[str] | None) -> Prepared:
        side = self._network.visual.image_size[0]
        pixels = None if images is None else pinned(torch.from_numpy(squares(images, side)))
        if texts is None:
            return Prepared(pixels, [], None)
        parts = self._cut(texts)
        ids = parts.inputs(lambda some: pinned(torch.from_numpy(self._words.ids(some, self._longest))))
        return Prepared(pixels, ids, parts)

    def reading(self, texts: Sequence[str]) -> Reading:
        return self._cut(texts).reading()

    def _cut(self, texts: Sequence[str]) -> Chunks:
        return cut(texts, self._count, self._longest - 2, self._most)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> Tensor:
        pixels, ids, parts = prepared
        device = device_of(self._network)
        image = None if pixels is None else self._network.encode_image(normalised(sent(pixels, device)))
        vectors = [self._network.encode_text(sent(some, device)) for some in ids]
        text = None if parts is None else parts.averaged(vectors)
        both = joined([image, text], [self._half, self._half], "concat")
        return both if self._reading is None else (both - self._reading[0]) @ self._reading[1]


def network(params: ClipParams, tokens: int, longest: int, taught: int = 0) -> Any:
    from open_clip import CLIP as Network
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(
        layers=params.layers, width=params.width, head_width=HEAD, patch_size=params.patch, image_size=params.image
    )
    text = CLIPTextCfg(
        context_length=longest,
        vocab_size=1 + tokens,
        width=params.width,
        heads=params.width // HEAD,
        layers=params.layers,
    )
    clip: Any = Network(params.width, vision, text)
    clip.teacher = nn.Linear(2 * params.width, taught) if taught else None
    return clip


def fit(context: Context, params: ClipParams, progress: Progress) -> None:
    """Train on the dataset's pairs, from the last checkpoint, and write the weights; UserError for less than two."""
    seed = seed_for(CLIP_SEED, context.layout.dataset, context.params.seed)
    texts = io.read_table(context.layout.items, schemas.ITEMS, ["text"])["text"].to_pylist()
    folder = context.fitted.parent
    scratch = folder / f".{context.name}-pixels.npy"
    row, pixels = decode_all(context.layout.images, params.image, scratch)
    pairs = _pairs(context, params, texts, row)
    words = Words(params.max_tokens)
    tokens = [words.tokens(text) for text in texts if text.strip()]
    longest, vocabulary = max(map(len, tokens)), np.unique(np.concatenate(tokens))
    words = Words(params.max_tokens, torch.from_numpy(vocabulary))
    checkpoint = Checkpoint(folder / f".{context.name}-checkpoint.safetensors", EVERY)
    target = _target(context, params, texts)[pairs] if params.distill else None
    data = Pairs(row[pairs], words.ids([texts[i] for i in pairs], longest), pixels, target)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        taught = 0 if target is None else target.shape[1]
        clip = network(params, len(vocabulary), longest, taught).to(pick(mps=False))
        with progress(total=params.steps, unit="step", what=context.name) as bar:
            train(clip, data, params, seed, checkpoint, bar.update)
        reading = _reading(context, params, clip, words, pairs, texts) if taught else {}
    weights = {name: tensor.cpu().contiguous() for name, tensor in clip.state_dict().items()} | reading
    io.write_bytes(context.fitted, save(weights | {VOCABULARY: torch.from_numpy(vocabulary)}))
    checkpoint.clear()
    scratch.unlink(missing_ok=True)


def fit_untrained(context: Context, params: ClipParams, progress: Progress) -> None:
    fit(context, params.model_copy(update={"steps": 0}), progress)


def make(context: Context, params: ClipParams) -> Clip:
    """Load the output of `fit`; UserError if it is missing."""
    if not context.fitted.is_file():
        raise UserError(f"'encoders.{context.name}': {context.fitted} is missing; run `alignrec encode` again")
    weights = load_file(context.fitted)
    vocabulary = weights.pop(VOCABULARY)
    reading = Whitening(*(weights.pop(name).numpy() for name in (MEAN, MAP))) if MAP in weights else None
    taught = len(weights.get("teacher.weight", ()))
    clip = network(params, len(vocabulary), len(weights["positional_embedding"]), taught)
    clip.load_state_dict(weights, strict=True)
    return Clip(clip.to(pick()), Words(params.max_tokens, vocabulary), params.chunks, reading)


CLIP_SEED = "clip"  # first name of the seed: the untrained network is the one that the trained one began as
CLIP = Spec(make, ClipParams, fit=fit, portable=False, library="open_clip_torch")
UNTRAINED = replace(CLIP, fit=fit_untrained, variant_of="clip")


def _target(context: Context, params: ClipParams, texts: Sequence[str]) -> np.ndarray:
    """Return the joint vector of the teachers, as in `pretrain`: float32 [I, W], of length 1."""
    features: list[np.ndarray] = []
    blocks: list[Block] = []
    for part, name in enumerate(params.distill_from):
        entry = TEACHERS[name]
        teacher = entry.make(replace(context, name=name), entry.params())
        features.append(_encoded(context, teacher, texts, entry.reads))
        weight = IMAGE if entry.reads == ("image",) else 1.0
        blocks.append(Block(part, np.ones(features[-1].shape[1], bool), weight))
    return unit_rows(joining.fit(lambda: [features], blocks, WIDTH, POWER)(features))[0]


def _reading(
    context: Context, params: ClipParams, clip: Any, words: Words, pairs: np.ndarray, texts: Sequence[str]
) -> dict[str, Tensor]:
    vectors = _encoded(context, Clip(clip, words, params.chunks), texts, CLIP.reads)[pairs]
    head = clip.teacher.weight.T.detach().cpu().numpy()  # [2 W, of the target]
    directions = fit_pca(lambda: [vectors @ head], params.width, power=0).map
    return {MEAN: torch.from_numpy(vectors.mean(0)), MAP: torch.from_numpy(head @ directions)}


def _encoded(context: Context, encoder: Any, texts: Sequence[str], reads: Sequence[str]) -> np.ndarray:
    """Return an encoder's vectors of all items, float32 [I, F]."""
    n, shards = len(texts), io.shards(context.layout.images, "images")
    images = batching.read_images(shards, 0, n) if "image" in reads else [None] * n
    given = texts if "text" in reads else [""] * n
    own = context.params
    return batching.encode(encoder, given, images, own.batch_size, workers=own.workers).vectors


def _pairs(context: Context, params: ClipParams, texts: Sequence[str], row: np.ndarray) -> np.ndarray:
    has_image, has_text = row >= 0, np.array([bool(text.strip()) for text in texts], bool)
    pretrain = seed_for("pretrain", context.layout.dataset, 0)
    shown, _ = split(np.flatnonzero(has_image | has_text), params.held_out, seed_for(pretrain, "held out"))
    pairs = shown[(has_image & has_text)[shown]]
    if len(pairs) < 2:
        raise UserError(
            f"'encoders.{context.name}': {context.layout.dataset} has {len(pairs)} items to train on with both image "
            "and text, CLIP needs 2; leave it out"
        )
    return pairs
