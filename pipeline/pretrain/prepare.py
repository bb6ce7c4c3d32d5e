"""Inputs of pre-training from items, images and feature sets: target of CLS, tokens, pixels and the initial network.

Letters: I items, W width of the target.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file, save
from safetensors.torch import save as torch_save

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3.config import FIRST_POSITION, SIZES, Config
from alignrec.pipeline.beit3.mini import Network
from alignrec.pipeline.beit3.minilm import WordPieces, load
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.tokenizer import BOS, EOS, MOST_SENTENCES, Tokenizer, split_text, train_model
from alignrec.pipeline.encode import quality
from alignrec.pipeline.encode.folder import FeatureSet
from alignrec.pipeline.encode.params import IMAGE_TOKENS, Encode
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.images.pixels import decode_all
from alignrec.pipeline.items.columns import Texts
from alignrec.pipeline.ops import linalg
from alignrec.pipeline.ops.linalg import IMAGE, POWER, WIDTH, unit_rows
from alignrec.pipeline.pretrain import mini, published, visual_tokens
from alignrec.pipeline.pretrain.corpus import Corpus, Ids, Task
from alignrec.pipeline.pretrain.params import VOCAB, Pretrain
from alignrec.pipeline.pretrain.published import Obtain
from alignrec.pipeline.sources.base import Download

CENTROIDS = "centroids"
LEAST_TOKENS = 128  # text positions of a network, at least
NO_PIECES = 5  # special ids, the vocabulary of a dataset without text


class Tokenised(NamedTuple):
    """Ids of all texts in parts; see `Corpus`."""

    parts: Sequence[np.ndarray]  # int [<= params.max_tokens] each
    first: np.ndarray  # int64 [I + 1]
    whole: np.ndarray  # int64 [I], ids of each text
    vocabulary: int
    mask_id: int


def read_target(run: Run, texts: Texts) -> np.ndarray | None:
    """Return the teachers' joint vector, as in feature set `linear`: float32 [I, W], zero for items without content.

    Default teachers that are not encoded or read no modality of the dataset are skipped; None without teachers.
    """
    layout, own = run.layout, run.params[Pretrain]
    given, there = "distill_from" in own.model_fields_set, _present_modalities(layout, texts)
    names = [name for name in own.distill_from if given or name in run.params[Encode].encoders]
    sets = [FeatureSet.of(layout, name) for name in names]
    sets = [one for one in sets if given or there & {*one.facts.reads}]
    features = [io.map_features(one.folder) for one in sets]
    distinct = [quality.differ(vectors) for vectors in features]
    blocks = quality.joinable_blocks(sets, distinct, IMAGE)
    if not blocks:
        if sets:
            run.warn("pretrain.distill_from: no teacher distinguishes items, so nothing is distilled")
        return None

    def parts() -> Iterator[list[np.ndarray]]:
        return ([x[start : start + mini.BLOCK] for x in features] for start in range(0, len(texts), mini.BLOCK))

    fit = linalg.fit_blocks(parts, blocks, WIDTH, POWER)
    return io.mapped((unit_rows(fit(some))[0] for some in parts()), layout.encoder_scratch)


def read_images(layout: Layout) -> mini.Images:
    """Return the concatenated vectors of IMAGE_TOKENS of all images."""
    texts = Texts(layout.items)
    if "image" not in _present_modalities(layout, texts):
        return mini.Images(np.zeros((len(texts), 0), np.float32), np.full(len(texts), -1), ())
    sets = [FeatureSet.of(layout, name) for name in IMAGE_TOKENS]
    shards = (np.hstack(parts) for parts in zip(*(one.vectors() for one in sets), strict=True))
    vectors = io.mapped(shards, layout.encoder_scratch)
    has = np.concatenate(
        [vectors[start : start + mini.BLOCK].any(axis=1) for start in range(0, len(vectors), mini.BLOCK)]
    )
    widths = tuple(one.width for one in sets) if has.any() else ()
    return mini.Images(vectors, np.where(has, np.arange(len(vectors)), -1), widths)


def _present_modalities(layout: Layout, texts: Texts) -> set[str]:
    statuses = (
        io.read_table(path, schemas.IMAGES, ["status"])["status"] for path in io.shards(layout.images, "images")
    )
    pictured = any("ok" in shard.unique().to_pylist() for shard in statuses)
    there = {"image": pictured, "text": any(map(str.strip, texts))}
    return {modality for modality, has in there.items() if has}


def read_texts(layout: Layout, lines: Texts, params: Pretrain, obtain: Obtain) -> Tokenised:
    if not layout.encoder.tokenizer.is_file():
        if params.tokenizer is not None:
            model: bytes | None = obtain(params.tokenizer, params.tokenizer_sha256).read_bytes()
        else:
            step = math.ceil(len(lines) / MOST_SENTENCES)  # samples the whole catalogue
            model = train_model(islice(lines, 0, None, max(1, step)), VOCAB)
        if model is None:
            nothing = [np.array([BOS, EOS])] * len(lines)
            return Tokenised(
                nothing, np.arange(len(lines) + 1), np.zeros(len(lines), np.int64), NO_PIECES, NO_PIECES - 1
            )
        io.write_bytes(layout.encoder.tokenizer, model)
    return _tokenise(layout, lines, Tokenizer(layout.encoder.tokenizer.read_bytes()), params.max_tokens, params.chunks)


def _tokenise(
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


def read_codes(
    layout: Layout, pixels: np.ndarray, shape: Config, params: Pretrain, seed: int
) -> tuple[np.ndarray, int]:
    """Learn centroids of patches, unless a killed run did, and return the nearest, int32 [n, P], and their number."""
    n = len(pixels)
    if not n:
        return np.zeros((0, shape.patches), np.int32), 0

    def vectors(images: np.ndarray) -> np.ndarray:
        return visual_tokens.cut_patches(pixels[images], shape.patch)

    if not layout.visual_tokens.is_file():
        io.write_bytes(
            layout.visual_tokens, save({CENTROIDS: visual_tokens.learn_codebook(vectors, n, params.codes, seed)})
        )
    centroids = load_file(layout.visual_tokens)[CENTROIDS]
    assigned = visual_tokens.assign_codes(vectors, n, centroids)
    return io.mapped(assigned, layout.encoder_scratch), len(centroids)


def network_and_task(
    run: Run, lines: Texts, target: np.ndarray | None, device: torch.device
) -> tuple[Network, Task, list[str]]:
    """Return the network on the device, its task, and notes on its initial weights."""
    layout, params, seed = run.layout, run.params[Pretrain], run.seed()
    torch.set_num_threads(params.threads)  # sums in one order
    if params.size == "mini":
        network, corpus, tokens, mask_id, notes = _prepare_mini(layout, lines, params, seed)
    else:
        obtain = published.make_obtain(
            layout, run.params[Download], partial(run.progress, unit="B", what="published file")
        )
        network, corpus, tokens, mask_id, notes = _prepare_beit3(layout, lines, params, seed, obtain, device)
    return network.to(device), Task(corpus, tokens, mask_id, params, seed, device, target=target), notes


def _prepare_beit3(
    layout: Layout, lines: Texts, params: Pretrain, seed: int, obtain: Obtain, device: torch.device
) -> tuple[Network, Corpus, np.ndarray, int, list[str]]:
    """Return the network, its corpus, visual tokens, the id of <mask>, and notes."""
    shape = SIZES[params.size]
    tokenised = read_texts(layout, lines, params, obtain)
    pieces, rows = tokenised.vocabulary, positions(tokenised.parts)
    tensors = published.read_start(params, obtain, pieces) if params.init else None  # fails early
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    row, pixels = decode_all(layout.images, shape.image, layout.encoder_scratch / "pictures.npy")
    if params.vqkd and len(pixels):
        tokens, n = published.visual_tokens(params, obtain, pixels, shape, device)
    else:
        tokens, n = read_codes(layout, pixels, shape, params, seed_for(seed, "visual tokens"))
    torch.manual_seed(seed_for(seed, "network"))
    if tensors is not None:
        network, notes = published.start_network(params, tensors, n, pieces, rows)
    else:
        network, notes = BEiT3(replace(shape, vocab=pieces, positions=rows, codes=n, mlm=True)), []
    if tensors is None and layout.encoder.tokenizer.is_file():  # else there are no texts
        notes.append(published.start_words(network, Tokenizer(layout.encoder.tokenizer.read_bytes()).pieces, load()))
    return network, Corpus(*tokenised[:3], row, pixels), tokens, tokenised.mask_id, notes


def _prepare_mini(
    layout: Layout, lines: Texts, params: Pretrain, seed: int
) -> tuple[Network, Corpus, np.ndarray, int, list[str]]:
    images = read_images(layout)
    pieces, known = mini.read_word_pieces(layout, lines)
    maps = mini.fit_projections(images, seed_for(seed, "images"))
    tokens, codes = mini.assign_visual_tokens(images, maps, params.codes, seed_for(seed, "visual tokens"))
    torch.manual_seed(seed_for(seed, "network"))
    network = mini.build_network(pieces, known, images, maps, codes)
    start = {name: x.contiguous() for name, x in network.image.state_dict().items()}
    io.write_bytes(layout.encoder.start, torch_save(start))  # for the control without training
    tokenised = _tokenise(layout, lines, pieces, min(params.max_tokens, network.config.positions), params.chunks)
    notes = [f"text and image experts start as MiniLM; {known:,} of {pieces.vocab:,} word pieces are predicted"]
    corpus = Corpus(*tokenised[:3], images.row, images.vectors)
    return network, corpus, tokens, tokenised.mask_id, notes
