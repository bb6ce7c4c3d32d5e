"""From items and images to the inputs of pre-training: tokenizer, visual tokens, pixels, network."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from safetensors.numpy import load_file, save

from pipeline import io
from pipeline.beit3.network import FIRST_POSITION, SIZES, BEiT3, Config
from pipeline.beit3.tokenizer import BOS, ENDLESS, EOS, Tokenizer, cut, train
from pipeline.images.pixels import decode_all
from pipeline.layout import Layout
from pipeline.pretrain import minilm, published, visual_tokens
from pipeline.pretrain.batches import Task
from pipeline.pretrain.corpus import Corpus
from pipeline.pretrain.params import Pretrain
from pipeline.pretrain.published import Cache
from pipeline.seeds import seed_for

CENTROIDS = "centroids"
LEAST_TOKENS = 128  # of a text that a network has positions for, whatever it is trained on
NO_PIECES = 5  # vocabulary of a dataset without text: the special ids


def texts(layout: Layout, lines: Sequence[str], params: Pretrain, cache: Cache) -> tuple[list[np.ndarray], int, int]:
    """Tokenise all texts, uncut, with the tokenizer that the parameters name, or one trained on the dataset's own text.

    Returns:
        ids of each text, the vocabulary, the id of <mask>.
    """
    if not layout.encoder.tokenizer.is_file():
        if params.tokenizer is not None:
            model: bytes | None = cache.file(params.tokenizer, params.tokenizer_sha256).read_bytes()
        else:
            model = train(lines, params.vocab)
        if model is None:
            return [np.array([BOS, EOS])] * len(lines), NO_PIECES, NO_PIECES - 1
        io.write_bytes(layout.encoder.tokenizer, model)
    tokenizer = Tokenizer(layout.encoder.tokenizer.read_bytes())
    return tokenizer.encode(lines, ENDLESS), tokenizer.vocab, tokenizer.mask


def positions(ids: Sequence[np.ndarray]) -> int:
    """Return the rows of a table of text positions that the longest of some texts needs, or LEAST_TOKENS."""
    return FIRST_POSITION + max(LEAST_TOKENS, *(len(text) for text in ids), 0)


def decode(layout: Layout, shape: Config) -> tuple[np.ndarray, np.ndarray]:
    """Decode every image once, into the scratch folder: row int64 [I] (-1: none), pixels uint8 [n, S, S, 3]."""
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    return decode_all(layout.images, shape.image, layout.encoder_scratch / "pictures.npy")


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
    return visual_tokens.assign(vectors, n, centroids), len(centroids)


def network_and_task(
    layout: Layout,
    lines: Sequence[str],
    params: Pretrain,
    cache: Cache,
    seed: int,
    device: torch.device,
    target: np.ndarray | None = None,
) -> tuple[BEiT3, Task, list[str]]:
    """Return the network to train, on the device, its task, and lines on the weights that it starts from."""
    torch.set_num_threads(params.threads)  # sums in one order
    shape = SIZES[params.size]
    whole, pieces, mask_id = texts(layout, lines, params, cache)
    ids = [cut(text, params.max_tokens) for text in whole]
    rows = positions(ids)
    tensors = published.start(params, cache, pieces) if params.init else None  # fails before the long work
    row, pixels = decode(layout, shape)
    if params.vqkd and len(pixels):
        tokens, n = published.visual_tokens(params, cache, pixels, shape, device)
    else:
        tokens, n = codes(layout, pixels, shape, params, seed_for(seed, "visual tokens"))
    torch.manual_seed(seed_for(seed, "network"))
    if tensors is not None:
        network, notes = published.network(params, tensors, n, pieces, rows)
    else:
        network, notes = BEiT3(replace(shape, vocab=pieces, positions=rows, codes=n, mlm=True)), []
    if params.words == "minilm" and layout.encoder.tokenizer.is_file():  # else there are no texts
        notes.append(
            minilm.start_words(network, Tokenizer(layout.encoder.tokenizer.read_bytes()).pieces, minilm.load())
        )
    corpus = Corpus(ids, row, pixels, np.array([len(text) for text in whole], np.int64))
    return network.to(device), Task(corpus, tokens, mask_id, params, seed, device, target), notes
