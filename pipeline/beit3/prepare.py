"""Inputs of pre-training from items, images and feature sets: target of CLS, tokens, pixels and the initial network.

Letters: I items, W width of the target, or of the vectors of all image tokens, W_p of one; B batch, S image side, P
patches or image tokens, p patch side, D width of the network, C codes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import faiss
import numpy as np
import torch
from safetensors.numpy import load_file, save
from safetensors.torch import save as torch_save
from torch import Tensor, nn

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import published
from alignrec.pipeline.beit3.config import FIRST_POSITION, SIZES, BEiT3Config, MiniConfig
from alignrec.pipeline.beit3.corpus import Corpus, PretrainTask, TextParts
from alignrec.pipeline.beit3.mini import BEiT3OrMini, Mini
from alignrec.pipeline.beit3.minilm import WordPieces, copy_minilm, initialise_words, order_pieces
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import IMAGE_TOKENS, VOCAB, Pretrain
from alignrec.pipeline.beit3.published import Obtain
from alignrec.pipeline.beit3.tokenizer import (
    BOS,
    EOS,
    MOST_SENTENCES,
    Tokenizer,
    split_text,
    train_model,
)
from alignrec.pipeline.encoders.chunks import LONGEST
from alignrec.pipeline.features.folder import FeatureSet, differ, joinable_blocks
from alignrec.pipeline.images.decode import decode_all
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import IMAGE, POWER, WIDTH, Whitening, unit_rows
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

LEAST_TOKENS = 128  # minimum text positions of a network
NO_PIECES = 5  # number of special ids, the vocabulary of a dataset without text
REDUCED = 128  # principal components in an initial projection, each divided by the root of its standard deviation
LENGTH = 1.4  # initial root mean square norm of a projected image token, as in MiniLM's embeddings
FEW = 8  # minimum number of images per visual token
SAMPLE = 20_000  # maximum images from which projections and visual tokens are learned
CENTROIDS, ITERATIONS = "centroids", 20  # k-means: name of its tensor, and iterations
PER_CODE, MEMORY = (
    128,
    2**30,
)  # k-means: vectors per code, and maximum bytes of the vectors that it samples from
BLOCK = 4096  # items at a time


@dataclass(frozen=True)
class ImageVectors:
    """The vectors of all images."""

    vectors: np.ndarray  # float32 [I, W], a memory map; zero without image
    row: np.ndarray  # int64 [I], the item's number; -1 without image
    widths: tuple[int, ...]  # W_p of each token; empty without images

    @property
    def items(self) -> np.ndarray:
        return np.flatnonzero(self.row >= 0)

    def tokens(self, items: np.ndarray) -> list[np.ndarray]:
        """Return the vectors of each image token: float32 [n, W_p] each."""
        return np.split(self.vectors[items], np.cumsum(self.widths)[:-1], axis=1)

    def sample(self, seed: int) -> np.ndarray:
        return np.sort(np.random.default_rng(seed).permutation(self.items)[:SAMPLE])


def network_and_task(
    layout: Layout, lines: io.Texts, params: Pretrain, seed: int, obtain: Obtain, target: np.ndarray | None,
    device: torch.device,
) -> tuple[BEiT3OrMini, PretrainTask, list[str]]:  # fmt: skip
    """Return the network on the device, its task, and notes on its initial weights."""
    torch.set_num_threads(params.threads)  # fixes the order of sums
    if params.size == "mini":
        network, corpus, tokens, pieces, notes = _prepare_mini(layout, lines, params, seed)
    else:
        network, corpus, tokens, pieces, notes = _prepare_beit3(
            layout, lines, params, seed, obtain, device
        )
    # <mask> is the last piece
    return (
        network.to(device),
        PretrainTask(corpus, tokens, pieces - 1, params, seed, device, target=target),
        notes,
    )


def _prepare_beit3(
    layout: Layout,
    lines: io.Texts,
    params: Pretrain,
    seed: int,
    obtain: Obtain,
    device: torch.device,
) -> tuple[BEiT3OrMini, Corpus, np.ndarray, int, list[str]]:
    """Return the network, its corpus, visual tokens, the number of pieces, and notes."""
    shape, tokenizer = SIZES[params.size], _read_tokenizer(layout, lines, params, obtain)
    pieces = NO_PIECES if tokenizer is None else tokenizer.vocab
    texts = _tokenise(layout, lines, tokenizer, params.max_tokens, params.chunks)
    rows = FIRST_POSITION + max(LEAST_TOKENS, max(map(len, texts[0]), default=0))
    tensors = (
        published.read_start(params, obtain, pieces) if params.init else None
    )  # first, to fail early
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    row, pixels = decode_all(layout.images, shape.image, layout.encoder_scratch / "pictures.npy")
    if params.vqkd and len(pixels):
        tokens, n = published.predict_visual_tokens(params, obtain, pixels, shape, device)
    else:
        tokens, n = read_codes(layout, pixels, shape, params, seed_for(seed, "visual tokens"))
    torch.manual_seed(seed_for(seed, "network"))
    if tensors is not None:
        network, notes = published.start_network(params, tensors, n, pieces, rows)
    else:
        network, notes = BEiT3(replace(shape, vocab=pieces, positions=rows, codes=n, mlm=True)), []
        if tokenizer is not None:
            notes.append(initialise_words(network, tokenizer.pieces))
    return network, Corpus(*texts, row, pixels), tokens, pieces, notes


def _prepare_mini(
    layout: Layout, lines: io.Texts, params: Pretrain, seed: int
) -> tuple[BEiT3OrMini, Corpus, np.ndarray, int, list[str]]:
    images = read_image_vectors(layout)
    blocks = (lines.slice(start, io.PART).to_pylist() for start in range(0, len(lines), io.PART))
    ordered, known = order_pieces(blocks)
    io.write_json(layout.encoder.word_pieces, {"pieces": ordered, "known": known})
    pieces = WordPieces(ordered)
    seen = images.tokens(images.sample(seed_for(seed, "images"))) if images.widths else []
    maps = [projections.fit_pca(lambda x=x: [x], REDUCED, POWER) for x in seen]  # type: ignore[misc]
    tokens, codes = assign_visual_tokens(
        images, maps, params.codes, seed_for(seed, "visual tokens")
    )
    torch.manual_seed(seed_for(seed, "network"))
    network = build_network(pieces, known, images, maps, codes)
    start = {name: x.contiguous() for name, x in network.image.state_dict().items()}
    io.write_bytes(layout.encoder.start, torch_save(start))  # stored for the untrained control
    texts = _tokenise(
        layout, lines, pieces, min(params.max_tokens, network.config.positions), params.chunks
    )
    notes = [
        f"text and image experts start as MiniLM; {known:,} of {pieces.vocab:,} word pieces are predicted"
    ]
    return network, Corpus(*texts, images.row, images.vectors), tokens, pieces.vocab, notes


def read_target(
    layout: Layout,
    texts: io.Texts,
    teachers: Sequence[str],
    given: bool,
    warn: Callable[[str], object],
) -> np.ndarray | None:
    """Return the teachers' joint vector, as in feature set `linear`: float32 [I, W], zero for items without content.

    Teachers that read no modality of the dataset are skipped unless `given`; None without teachers.
    """
    there, sets = (
        _present_modalities(layout, texts),
        [FeatureSet.of(layout, name) for name in teachers],
    )
    sets = [one for one in sets if given or there & {*one.facts.reads}]
    features = [io.map_features(one.folder) for one in sets]
    distinct = [differ(vectors) for vectors in features]
    blocks = joinable_blocks(sets, distinct, IMAGE)
    if not blocks:
        if sets:
            warn("pretrain.distill_from: no teacher distinguishes items, so nothing is distilled")
        return None

    def parts() -> Iterator[list[np.ndarray]]:
        return (
            [x[start : start + BLOCK] for x in features] for start in range(0, len(texts), BLOCK)
        )

    fit = projections.fit_blocks(parts, blocks, WIDTH, POWER)
    return io.memory_map((unit_rows(fit(some))[0] for some in parts()), layout.encoder_scratch)


def read_image_vectors(layout: Layout) -> ImageVectors:
    """Return the concatenated vectors of IMAGE_TOKENS of all images."""
    texts = io.Texts(layout.items)
    if "image" not in _present_modalities(layout, texts):
        return ImageVectors(np.zeros((len(texts), 0), np.float32), np.full(len(texts), -1), ())
    sets = [FeatureSet.of(layout, name) for name in IMAGE_TOKENS]
    shards = (np.hstack(parts) for parts in zip(*(one.vectors() for one in sets), strict=True))
    vectors = io.memory_map(shards, layout.encoder_scratch)
    has = np.concatenate(
        [vectors[start : start + BLOCK].any(axis=1) for start in range(0, len(vectors), BLOCK)]
    )
    widths = tuple(one.width for one in sets) if has.any() else ()
    return ImageVectors(vectors, np.where(has, np.arange(len(vectors)), -1), widths)


def _present_modalities(layout: Layout, texts: io.Texts) -> set[str]:
    shards = (
        io.read_table(path, schemas.IMAGES, ["status"])
        for path in io.shards(layout.images, "images")
    )
    pictured = any("ok" in shard["status"].unique().to_pylist() for shard in shards)
    there = {"image": pictured, "text": any(map(str.strip, texts))}
    return {modality for modality, has in there.items() if has}


def _read_tokenizer(
    layout: Layout, lines: io.Texts, params: Pretrain, obtain: Obtain
) -> Tokenizer | None:
    """Read the tokenizer, which is copied or trained first; None for a dataset without texts."""
    path = layout.encoder.tokenizer
    if not path.is_file():
        if params.tokenizer is not None:
            model: bytes | None = obtain(params.tokenizer, params.tokenizer_sha256).read_bytes()
        else:
            step = math.ceil(len(lines) / MOST_SENTENCES)  # samples evenly from the whole catalogue
            model = train_model(islice(lines, 0, None, max(1, step)), VOCAB)
        if model is None:
            return None
        io.write_bytes(path, model)
    return Tokenizer(path.read_bytes())


def _tokenise(
    layout: Layout,
    lines: io.Texts,
    tokenizer: Tokenizer | WordPieces | None,
    max_tokens: int,
    chunks: int,
) -> tuple[Sequence[np.ndarray], np.ndarray, np.ndarray]:
    """Return the first three fields of `Corpus`."""
    if tokenizer is None:  # there are no texts
        return (
            [np.array([BOS, EOS])] * len(lines),
            np.arange(len(lines) + 1),
            np.zeros(len(lines), np.int64),
        )
    lengths, counts, whole = list[int](), list[int](), list[int]()

    def ids_of_parts() -> Iterator[np.ndarray]:
        for start in range(0, len(lines), io.PART):
            for ids in tokenizer.encode(lines.slice(start, io.PART).to_pylist()):
                parts = split_text(ids, max_tokens, chunks)
                lengths.extend(map(len, parts))
                counts.append(len(parts))
                whole.append(len(ids))
                yield np.concatenate(parts).astype(np.int32)

    flat = io.memory_map(ids_of_parts(), layout.encoder_scratch)
    return TextParts(flat, np.cumsum(lengths)), np.cumsum([0, *counts]), np.array(whole)


def assign_visual_tokens(
    images: ImageVectors, maps: Sequence[Whitening], most: int, seed: int
) -> tuple[np.ndarray, int]:
    """Return the nearest centroid of each image token, int32 [I, P], and the number of all centroids."""
    out = np.zeros((len(images.row), len(images.widths)), np.int32)
    total = 0
    for p, own in enumerate(maps):
        sample = own.apply(images.tokens(images.sample(seed))[p])
        count = max(1, min(most, len(sample) // FEW))
        kmeans = train_kmeans(sample, count, seed)
        for start in range(0, len(images.items), BLOCK):
            some = images.items[start : start + BLOCK]
            nearest = kmeans.index.search(own.apply(images.tokens(some)[p]), 1)[1]
            out[some, p] = total + nearest[:, 0]
        total += count
    return out, total


def build_network(
    pieces: WordPieces, known: int, images: ImageVectors, maps: Sequence[Whitening], codes: int
) -> Mini:
    made = Mini(
        MiniConfig(images.widths, pieces.vocab, positions=LONGEST, codes=codes, pieces=known)
    )
    copy_minilm(made, pieces)
    with torch.no_grad():
        nn.init.normal_(made.image.mask_token, std=0.05)
        nn.init.normal_(made.image.positions, std=0.02)
        for p, own in enumerate(maps):
            project = made.image.projections[p]
            assert isinstance(project, nn.Linear)
            # principal components under a random rotation into D dimensions
            turned = torch.linalg.qr(
                torch.randn(project.out_features, own.map.shape[1])
            ).Q  # [D, REDUCED]
            x = images.tokens(images.items[:BLOCK])[p]
            length = float(np.sqrt(np.square(own.apply(x)).sum(axis=1).mean()))
            weight: Tensor = (
                turned @ torch.from_numpy(own.map.T) * (LENGTH / length if length else 0.0)
            )  # [D, W_p]
            project.weight.copy_(weight)
            project.bias.copy_(-weight @ torch.from_numpy(own.mean))
        if made.mlm_head is not None:
            made.mlm_head.weight.copy_(made.text.words.weight[:known])
            made.mlm_head.bias.zero_()
    return made


def read_codes(
    layout: Layout, pixels: np.ndarray, shape: BEiT3Config, params: Pretrain, seed: int
) -> tuple[np.ndarray, int]:
    """Learn centroids of patches, unless a killed run did, and return the nearest, int32 [n, P], and their number."""
    if not len(pixels):
        return np.zeros((0, shape.patches), np.int32), 0
    if not layout.visual_tokens.is_file():
        rng = np.random.default_rng(seed)
        _, per_image, width = cut_patches(pixels[:1], shape.patch).shape
        enough = min(4 * PER_CODE * params.codes, MEMORY // (4 * width)) // per_image + 1
        some = cut_patches(pixels[np.sort(rng.permutation(len(pixels))[:enough])], shape.patch)
        # equal vectors count once; otherwise most codes of drawings on white would be shades of white
        distinct = np.unique(some.reshape(-1, width), axis=0)
        sample = distinct[np.sort(rng.permutation(len(distinct))[: PER_CODE * params.codes])]
        if len(sample) > params.codes:
            kmeans = train_kmeans(sample, params.codes, seed, max_points_per_centroid=PER_CODE)
            sample = np.asarray(kmeans.centroids, np.float32)
        io.write_bytes(layout.visual_tokens, save({CENTROIDS: sample}))
    centroids = load_file(layout.visual_tokens)[CENTROIDS]
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    blocks = (
        cut_patches(pixels[start : start + BLOCK], shape.patch)
        for start in range(0, len(pixels), BLOCK)
    )
    nearest = (
        index.search(x.reshape(-1, x.shape[2]), 1)[1].reshape(x.shape[:2]).astype(np.int32)
        for x in blocks
    )
    return io.memory_map(nearest, layout.encoder_scratch), len(centroids)


def cut_patches(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cut uint8 [B, S, S, 3] into patches, float32 [B, P, 3 p p] in [-1, 1]."""
    b, s = pixels.shape[:2]
    grid = s // side
    cut = pixels[:, : grid * side, : grid * side].reshape(b, grid, side, grid, side, 3)
    return (
        cut.transpose(0, 1, 3, 2, 4, 5).reshape(b, grid * grid, -1).astype(np.float32) / 127.5 - 1
    )


def train_kmeans(sample: np.ndarray, codes: int, seed: int, **options: int) -> faiss.Kmeans:
    faiss.omp_set_num_threads(1)  # the same order of sums on every machine
    options |= {"niter": ITERATIONS, "seed": seed % 2**31, "min_points_per_centroid": 1}
    kmeans = faiss.Kmeans(sample.shape[1], codes, **options)
    kmeans.train(sample)
    return kmeans
