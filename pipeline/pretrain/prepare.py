"""From items and images to the inputs of pre-training: tokenizer, visual tokens, pixels, network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save
from safetensors.torch import save as save_tensors
from tqdm import tqdm

import schemas
from pipeline import io
from pipeline.beit3 import released
from pipeline.beit3.network import FIRST_POSITION, BEiT3, Config, sized
from pipeline.beit3.tokenizer import BOS, ENDLESS, EOS, Tokenizer, cut, train
from pipeline.images import decoded
from pipeline.layout import Layout
from pipeline.ops.checkpoint import Checkpoint
from pipeline.pretrain import minilm, partners, published, visual_tokens, vqkd
from pipeline.pretrain.batches import Task
from pipeline.pretrain.corpus import Corpus
from pipeline.pretrain.distillation import Target
from pipeline.pretrain.params import Pretrain
from pipeline.pretrain.published import Cache
from pipeline.pretrain.teacher import FeatureMaps, Lazy, Progress, feature_maps
from pipeline.pretrain.visual_tokens import Vectors
from pipeline.seeds import seed_for

CENTROIDS = "centroids"
MEASURED = "measured"
"""key of the metadata of a VQ-KD tokenizer that was trained here"""
LEAST_TOKENS = 128  # of a text that a network has positions for, whatever it is trained on
NO_PIECES = 5  # vocabulary of a dataset without text: the special ids


def texts(layout: Layout, lines: Sequence[str], params: Pretrain, cache: Cache) -> tuple[list[np.ndarray], int, int]:
    """Tokenise all texts, uncut, with the tokenizer that the parameters name, or one trained on the dataset's own text.

    Returns:
        ids of each text, the vocabulary, the id of <mask>.
    """
    if not layout.tokenizer.is_file():
        if params.tokenizer is not None:
            model: bytes | None = cache.file(params.tokenizer, params.tokenizer_sha256).read_bytes()
        else:
            model = train(lines, params.vocab)
        if model is None:
            return [np.array([BOS, EOS])] * len(lines), NO_PIECES, NO_PIECES - 1
        io.write_bytes(layout.tokenizer, model)
    tokenizer = Tokenizer(layout.tokenizer.read_bytes())
    return tokenizer.encode(lines, ENDLESS), tokenizer.vocab, tokenizer.mask


def positions(ids: Sequence[np.ndarray]) -> int:
    """Return the rows of a table of text positions that the longest of some texts needs, or LEAST_TOKENS."""
    return FIRST_POSITION + max(LEAST_TOKENS, *(len(text) for text in ids), 0)


def decode(layout: Layout, shape: Config) -> tuple[np.ndarray, np.ndarray]:
    """Decode every image once, into the scratch folder: row int64 [I] (-1: none), pixels uint8 [n, S, S, 3]."""
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    return decoded.decode(layout.images, shape.image, layout.encoder_scratch / "pictures.npy")


@dataclass(frozen=True)
class Lesson:
    """What visual tokens are learned from beside the dataset's pixels, and where progress is shown."""

    load: Lazy | None = None
    """loads the teacher, where `visual_tokens` wants one"""
    progress: Progress = tqdm


def codes(
    layout: Layout, pixels: np.ndarray, shape: Config, params: Pretrain, seed: int, device: torch.device, lesson: Lesson
) -> tuple[np.ndarray, int]:
    """Learn visual tokens, unless they were, and assign each patch its token.

    Args:
        layout: of the dataset; what is learned is written there.
        pixels: uint8 [n, S, S, 3].
        shape: of the network that is to predict them.
        params: of pre-training; `visual_tokens` is any but `vqkd`.
        seed: of all draws.
        device: to run on.
        lesson: with a teacher, where one is read.

    Returns:
        int32 [n, P], and how many tokens there are.
    """
    n = len(pixels)
    if not n:
        return np.zeros((0, shape.patches), np.int32), 0
    if params.visual_tokens == "teacher-vqkd":
        return _trained_codes(layout, pixels, shape, params, seed, device, lesson)
    if params.visual_tokens == "teacher-kmeans":
        vectors: Vectors = _maps(layout, shape, params, lesson).rows
    else:

        def vectors(images: np.ndarray) -> np.ndarray:
            return visual_tokens.patches(pixels[images], shape.patch)

    if not layout.visual_tokens.is_file():
        learned = visual_tokens.learn(vectors, n, params.codes, seed, unit=params.taught)
        io.write_bytes(layout.visual_tokens, save({CENTROIDS: learned}))
    centroids = load_file(layout.visual_tokens)[CENTROIDS]
    return visual_tokens.assign(vectors, n, centroids), len(centroids)


def _trained_codes(
    layout: Layout, pixels: np.ndarray, shape: Config, params: Pretrain, seed: int, device: torch.device, lesson: Lesson
) -> tuple[np.ndarray, int]:
    """Return the tokens of a VQ-KD tokenizer that is trained here; it is written as published ones are."""
    if not layout.visual_tokens.is_file():
        maps = _maps(layout, shape, params, lesson)
        checkpoint = Checkpoint(layout.encoder_scratch / "vqkd.safetensors", params.checkpoint_every)
        with lesson.progress(total=len(pixels) * params.vqkd_epochs, unit="image") as bar:
            trained, measured = vqkd.train(pixels, maps, shape.patch, params, checkpoint, seed, device, bar.update)
        facts = {MEASURED: json.dumps(measured, sort_keys=True)}  # one key: safetensors writes several in any order
        tensors = {name: tensor.cpu().contiguous() for name, tensor in trained.state_dict().items()}
        io.write_bytes(layout.visual_tokens, save_tensors(tensors, facts))
    tokenizer = released.load_vqkd(layout.visual_tokens, shape.grid)[0].to(device)
    return vqkd.tokens(tokenizer, pixels), tokenizer.codes


def _maps(layout: Layout, shape: Config, params: Pretrain, lesson: Lesson) -> FeatureMaps:
    """Return the teacher's features of every patch, which the scratch folder keeps."""
    assert lesson.load is not None  # the stage gives one where `params.taught`
    torch.set_num_threads(params.threads)
    return feature_maps(lesson.load, layout.images, shape.grid, layout.encoder_scratch, lesson.progress)


def measured(layout: Layout, task: Task, codes: int) -> dict[str, float]:
    """Return how the visual tokens are used, and what was measured in training their tokenizer; see vqkd.train.

    Args:
        layout: of the dataset.
        task: with the tokens.
        codes: how many there are.
    """
    usage = visual_tokens.usage(task.codes, codes)
    if task.params.visual_tokens != "teacher-vqkd" or not layout.visual_tokens.is_file():
        return usage
    with safe_open(layout.visual_tokens, "np") as file:
        figures: dict[str, float] = json.loads((file.metadata() or {}).get(MEASURED, "{}"))
    return usage | figures


def network_and_task(
    layout: Layout,
    lines: Sequence[str],
    params: Pretrain,
    cache: Cache,
    seed: int,
    device: torch.device,
    lesson: Lesson = Lesson(),
    targets: tuple[Target, ...] = (),
) -> tuple[BEiT3, Task, list[str]]:
    """Return the network to train, on the device, its task, and lines on the weights that it starts from.

    Args:
        layout: of the dataset; tokenizer and visual tokens are written there.
        lines: text of each item, in order.
        params: of pre-training.
        cache: of published files.
        seed: of all draws.
        device: to train on.
        lesson: what visual tokens are learned from.
        targets: what CLS is to know of each item.
    """
    torch.set_num_threads(params.threads)  # sums in one order
    shape = sized(params.size, params.image)
    if params.text_experts == "minilm":
        minilm.check(shape, params.size)
    whole, pieces, mask_id = texts(layout, lines, params, cache)
    ids = [cut(text, params.max_tokens) for text in whole]
    rows = positions(ids)
    tensors = published.start(params, cache, pieces) if params.init else None  # fails before the long work
    row, pixels = decode(layout, shape)
    if params.visual_tokens == "vqkd" and len(pixels):
        tokens, n = published.visual_tokens(params, cache, pixels, shape, device)
    else:
        tokens, n = codes(layout, pixels, shape, params, seed_for(seed, "visual tokens"), device, lesson)
    torch.manual_seed(seed_for(seed, "network"))
    notes: list[str] = []
    if tensors is None:
        network = BEiT3(replace(shape, vocab=pieces, positions=rows, codes=n, mlm=True))
    else:
        network, notes = published.network(params, tensors, n, pieces, rows)
    if layout.tokenizer.is_file():  # else there are no texts
        notes += _from_minilm(network, layout, params)
    positives = _partners(layout, params, len(lines))
    corpus = Corpus(ids, row, pixels, np.array([len(text) for text in whole], np.int64))
    return network.to(device), Task(corpus, tokens, mask_id, params, seed, device, positives, targets), notes


def _from_minilm(network: BEiT3, layout: Layout, params: Pretrain) -> list[str]:
    """Start the parts of a network from MiniLM that the parameters name; return a line on each."""
    if "minilm" not in (params.words, params.text_experts):
        return []
    model = minilm.load()
    notes = []
    if params.words == "minilm":
        notes.append(minilm.start_words(network, Tokenizer(layout.tokenizer.read_bytes()).pieces, model))
    if params.text_experts == "minilm":
        notes.append(minilm.start_text_experts(network, model))
    return notes


def _partners(layout: Layout, params: Pretrain, items: int) -> np.ndarray | None:
    """Return the positives of the collaborative term, see `partners.partners`; None where it is off."""
    if not params.collaborative:
        return None
    interactions = io.read_table(layout.interactions, schemas.INTERACTIONS, ["user_id", "item_id", "split"])
    return partners.partners(interactions, items, params.common_users)
