"""From items and images to the inputs of pre-training: tokenizer, visual tokens, pixels, network."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file, save
from safetensors.torch import save as torch_save

from alignrec.pipeline import io
from alignrec.pipeline.beit3.config import FIRST_POSITION, SIZES, Config
from alignrec.pipeline.beit3.mini import Network
from alignrec.pipeline.beit3.minilm import WordPieces, load
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.tokenizer import BOS, EOS, MOST_SENTENCES, Tokenizer, split_text, train
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.images.pixels import decode_all
from alignrec.pipeline.items.columns import Texts
from alignrec.pipeline.pretrain import mini, published, visual_tokens
from alignrec.pipeline.pretrain.corpus import Corpus, Ids, Task
from alignrec.pipeline.pretrain.params import VOCAB, Pretrain
from alignrec.pipeline.pretrain.published import Obtain

CENTROIDS = "centroids"
LEAST_TOKENS = 128  # of a text that a network has positions for, whatever it is trained on
NO_PIECES = 5  # vocabulary of a dataset without text: the special ids


class Tokenised(NamedTuple):
    """Ids of all texts in parts; see `Corpus`."""

    parts: Sequence[np.ndarray]  # int [<= params.max_tokens] each
    first: np.ndarray  # int64 [I + 1]
    whole: np.ndarray  # int64 [I], ids of each text
    vocabulary: int
    mask_id: int


def texts(layout: Layout, lines: Texts, params: Pretrain, obtain: Obtain) -> Tokenised:
    if not layout.encoder.tokenizer.is_file():
        if params.tokenizer is not None:
            model: bytes | None = obtain(params.tokenizer, params.tokenizer_sha256).read_bytes()
        else:
            step = math.ceil(len(lines) / MOST_SENTENCES)  # so that they are of the whole catalogue
            model = train(islice(lines, 0, None, max(1, step)), VOCAB)
        if model is None:
            nothing = [np.array([BOS, EOS])] * len(lines)
            return Tokenised(
                nothing, np.arange(len(lines) + 1), np.zeros(len(lines), np.int64), NO_PIECES, NO_PIECES - 1
            )
        io.write_bytes(layout.encoder.tokenizer, model)
    return _tokenised(layout, lines, Tokenizer(layout.encoder.tokenizer.read_bytes()), params.max_tokens, params.chunks)


def _tokenised(
    layout: Layout, lines: Texts, tokenizer: Tokenizer | WordPieces, max_tokens: int, chunks: int
) -> Tokenised:
    lengths, counts, whole = list[int](), list[int](), list[int]()

    def ids_of_parts() -> Iterator[np.ndarray]:
        for start in range(0, len(lines), io.PART):
            for ids in tokenizer.encode(lines.slice(start, io.PART).to_pylist()):
                parts = split_text(ids, max_tokens, chunks)
                lengths.extend(map(len, parts))
                counts.append(len(parts))
                whole.append(len(ids))
                yield np.concatenate(parts).astype(np.int32)

    flat = io.mapped(ids_of_parts(), layout.encoder_scratch)
    parts = Ids(flat, np.cumsum(lengths))
    return Tokenised(parts, np.cumsum([0, *counts]), np.array(whole), tokenizer.vocab, tokenizer.mask)


def positions(parts: Sequence[np.ndarray]) -> int:
    return FIRST_POSITION + max(LEAST_TOKENS, max(map(len, parts), default=0))


def codes(layout: Layout, pixels: np.ndarray, shape: Config, params: Pretrain, seed: int) -> tuple[np.ndarray, int]:
    """Learn centroids of patches, unless they were, and assign each its nearest: int32 [n, P], and how many."""
    n = len(pixels)
    if not n:
        return np.zeros((0, shape.patches), np.int32), 0

    def vectors(images: np.ndarray) -> np.ndarray:
        return visual_tokens.patches(pixels[images], shape.patch)

    if not layout.visual_tokens.is_file():
        io.write_bytes(layout.visual_tokens, save({CENTROIDS: visual_tokens.learn(vectors, n, params.codes, seed)}))
    centroids = load_file(layout.visual_tokens)[CENTROIDS]
    assigned = visual_tokens.assign(vectors, n, centroids)
    return io.mapped(assigned, layout.encoder_scratch), len(centroids)


def network_and_task(
    layout: Layout,
    lines: Texts,
    params: Pretrain,
    obtain: Obtain,
    seed: int,
    device: torch.device,
    target: np.ndarray | None = None,
    images: mini.Images | None = None,
) -> tuple[Network, Task, list[str]]:
    """Return the network, on the device, its task, and notes on its initial weights; `images` are for `mini` only."""
    torch.set_num_threads(params.threads)  # sums in one order
    if images is not None:
        return _mini(layout, lines, params, seed, device, target, images)
    shape = SIZES[params.size]
    tokenised = texts(layout, lines, params, obtain)
    pieces, rows = tokenised.vocabulary, positions(tokenised.parts)
    tensors = published.start(params, obtain, pieces) if params.init else None  # fails early
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    row, pixels = decode_all(layout.images, shape.image, layout.encoder_scratch / "pictures.npy")
    if params.vqkd and len(pixels):
        tokens, n = published.visual_tokens(params, obtain, pixels, shape, device)
    else:
        tokens, n = codes(layout, pixels, shape, params, seed_for(seed, "visual tokens"))
    torch.manual_seed(seed_for(seed, "network"))
    if tensors is not None:
        network, notes = published.start_network(params, tensors, n, pieces, rows)
    else:
        network, notes = BEiT3(replace(shape, vocab=pieces, positions=rows, codes=n, mlm=True)), []
    if tensors is None and layout.encoder.tokenizer.is_file():  # else there are no texts
        notes.append(published.start_words(network, Tokenizer(layout.encoder.tokenizer.read_bytes()).pieces, load()))
    corpus = Corpus(tokenised.parts, tokenised.first, tokenised.whole, row, pixels)
    return network.to(device), Task(corpus, tokens, tokenised.mask_id, params, seed, device, target=target), notes


def _mini(
    layout: Layout,
    lines: Texts,
    params: Pretrain,
    seed: int,
    device: torch.device,
    target: np.ndarray | None,
    images: mini.Images,
) -> tuple[Network, Task, list[str]]:
    pieces, known = mini.word_pieces(layout, lines)
    maps = mini.reduced(images, seed_for(seed, "images"))
    tokens, codes = mini.visual_tokens(images, maps, params.codes, seed_for(seed, "visual tokens"))
    torch.manual_seed(seed_for(seed, "network"))
    network = mini.network(pieces, known, images, maps, codes)
    start = {name: x.contiguous() for name, x in network.image.state_dict().items()}
    io.write_bytes(layout.encoder.start, torch_save(start))  # for the control without training
    tokenised = _tokenised(layout, lines, pieces, min(params.max_tokens, network.config.positions), params.chunks)
    corpus = Corpus(tokenised.parts, tokenised.first, tokenised.whole, images.row, images.vectors)
    notes = [f"text and image experts start as MiniLM; {known:,} of {pieces.vocab:,} word pieces are predicted"]
    return network.to(device), Task(corpus, tokens, tokenised.mask_id, params, seed, device, target=target), notes
