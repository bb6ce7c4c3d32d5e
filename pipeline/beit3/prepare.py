"""Inputs of pre-training from items, images and feature sets.

They are the target of CLS, text ids, pixels or image vectors, and the initial network.

Letters: I items, W width of the target, W_p of the vectors of an image token, D of the network.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import published
from alignrec.pipeline.beit3.config import BEIT3_CONFIGS, FIRST_POSITION, MiniConfig
from alignrec.pipeline.beit3.corpus import Corpus, PretrainTask, TextParts
from alignrec.pipeline.beit3.image_vectors import ImageVectors
from alignrec.pipeline.beit3.mini import BEiT3OrMini, Mini
from alignrec.pipeline.beit3.minilm import (
    WordPieces,
    copy_minilm,
    initialise_words,
    order_pieces,
)
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.beit3.params import IMAGE_TOKENS, VOCAB, Pretrain
from alignrec.pipeline.beit3.published import Obtain
from alignrec.pipeline.beit3.tokenizer import (
    BOS,
    EOS,
    MAX_TRAINING_LINES,
    Tokenizer,
    split_text,
    train_model,
)
from alignrec.pipeline.beit3.visual_tokens import (
    ARRAY_BLOCK_ITEMS,
    assign_visual_tokens,
    read_codes,
)
from alignrec.pipeline.encoders.chunks import LONGEST
from alignrec.pipeline.features.blocks import joinable_blocks
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.quality import differ
from alignrec.pipeline.images.decode import decode_all
from alignrec.pipeline.linalg.projections import (
    IMAGE_WEIGHT,
    JOINT_POWER,
    JOINT_WIDTH,
    Whitening,
    fit_blocks,
    fit_pca,
    unit_rows,
)
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.seeds import seed_for

MIN_TEXT_POSITIONS = 128  # of a network
SPECIAL_IDS = 5  # the vocabulary of a dataset without text

# of the initial projections of image tokens
MAX_COMPONENTS = 128  # each divided by the root of its standard deviation
INITIAL_LENGTH = 1.4  # root mean square norm, as in MiniLM's embeddings
MASK_TOKEN_SD = 0.05
POSITION_SD = 0.02


class NetworkAndData(NamedTuple):
    """An initial network, and what it is trained on."""

    network: BEiT3OrMini
    corpus: Corpus
    codes: np.ndarray  # visual tokens
    pieces: int  # number of text ids; <mask> is the last
    notes: list[str]  # on the initial weights


class TextIds(NamedTuple):
    """The first three fields of `Corpus`."""

    parts: Sequence[np.ndarray]
    first: np.ndarray
    whole: np.ndarray


def network_and_task(
    layout: Layout,
    texts: io.Texts,
    params: Pretrain,
    seed: int,
    obtain: Obtain,
    target: np.ndarray | None,
    device: torch.device,
) -> tuple[BEiT3OrMini, PretrainTask, list[str]]:
    """Return the network on the device, its task, and notes on its initial weights."""
    torch.set_num_threads(params.threads)  # fixes the order of sums
    if params.size == "mini":
        prepared = _prepare_mini(layout, texts, params, seed)
    else:
        prepared = _prepare_beit3(layout, texts, params, seed, obtain, device)

    mask_id = prepared.pieces - 1
    task = PretrainTask(
        prepared.corpus, prepared.codes, mask_id, params, seed, device, target=target
    )
    return prepared.network.to(device), task, prepared.notes


def _prepare_beit3(
    layout: Layout,
    texts: io.Texts,
    params: Pretrain,
    seed: int,
    obtain: Obtain,
    device: torch.device,
) -> NetworkAndData:
    shape = BEIT3_CONFIGS[params.size]
    tokenizer = _read_tokenizer(layout, texts, params, obtain)
    pieces = SPECIAL_IDS if tokenizer is None else tokenizer.vocab
    ids = _tokenise(layout, texts, tokenizer, params.max_tokens, params.chunks)
    longest = max(map(len, ids.parts), default=0)
    positions = FIRST_POSITION + max(MIN_TEXT_POSITIONS, longest)

    # read first, to fail early
    tensors = published.read_start(params, obtain, pieces) if params.init else None
    layout.encoder_scratch.mkdir(parents=True, exist_ok=True)
    pictures = layout.encoder_scratch / "pictures.npy"
    row, pixels = decode_all(layout.images, shape.image, pictures)
    if params.vqkd and len(pixels):
        codes, count = published.predict_visual_tokens(params, obtain, pixels, shape, device)
    else:
        codes_seed = seed_for(seed, "visual tokens")
        codes, count = read_codes(layout, pixels, shape, params.codes, codes_seed)

    torch.manual_seed(seed_for(seed, "network"))
    notes: list[str] = []
    if tensors is not None:
        network, notes = published.start_network(params, tensors, count, pieces, positions)
    else:
        shape = replace(shape, vocab=pieces, positions=positions, codes=count, mlm=True)
        network = BEiT3(shape)
        if tokenizer is not None:
            notes = [initialise_words(network, tokenizer.pieces)]
    return NetworkAndData(network, Corpus(*ids, row, pixels), codes, pieces, notes)


def _prepare_mini(layout: Layout, texts: io.Texts, params: Pretrain, seed: int) -> NetworkAndData:
    images = read_image_vectors(layout)
    batches = (texts.slice(start, io.PART).to_pylist() for start in range(0, len(texts), io.PART))
    ordered, predicted = order_pieces(batches)
    io.write_json(layout.encoder.word_pieces, {"pieces": ordered, "known": predicted})
    pieces = WordPieces(ordered)

    maps = []
    if images.widths:
        sample = images.sample(seed_for(seed, "images"))
        maps = [_fit_projection(vectors) for vectors in images.tokens(sample)]
    codes_seed = seed_for(seed, "visual tokens")
    codes, count = assign_visual_tokens(images, maps, params.codes, codes_seed)

    torch.manual_seed(seed_for(seed, "network"))
    network = build_network(pieces, predicted, images, maps, count)
    start = {name: x.contiguous() for name, x in network.image.state_dict().items()}
    io.write_bytes(layout.encoder.start, save(start))  # stored for the untrained control

    max_tokens = min(params.max_tokens, network.config.positions)
    ids = _tokenise(layout, texts, pieces, max_tokens, params.chunks)
    note = (
        "text and image experts start as MiniLM; "
        f"{predicted:,} of {pieces.vocab:,} word pieces are predicted"
    )
    corpus = Corpus(*ids, images.row, images.vectors)
    return NetworkAndData(network, corpus, codes, pieces.vocab, [note])


def _fit_projection(vectors: np.ndarray) -> Whitening:
    return fit_pca(lambda: [vectors], MAX_COMPONENTS, JOINT_POWER)


def read_target(
    layout: Layout,
    texts: io.Texts,
    teachers: Sequence[str],
    are_named: bool,
    warn: Callable[[str], object],
) -> np.ndarray | None:
    """Return the teachers' joint vector, as in feature set `linear`; None without teachers.

    It is float32 [I, W], zero for items without content. Teachers that read no modality of the
    dataset are skipped unless the user named them.
    """
    present = _present_modalities(layout, texts)
    sets = [FeatureSet.of(layout, name) for name in teachers]
    if not are_named:
        sets = [feature_set for feature_set in sets if present & {*feature_set.facts.reads}]
    features = [io.map_features(feature_set.folder) for feature_set in sets]
    distinct = [differ(vectors) for vectors in features]
    blocks = joinable_blocks(sets, distinct, IMAGE_WEIGHT)
    if not blocks:
        if sets:
            warn("pretrain.distill_from: no teacher distinguishes items, so nothing is distilled")
        return None

    def parts() -> Iterator[list[np.ndarray]]:
        for start in range(0, len(texts), ARRAY_BLOCK_ITEMS):
            yield [vectors[start : start + ARRAY_BLOCK_ITEMS] for vectors in features]

    joint_map = fit_blocks(parts, blocks, JOINT_WIDTH, JOINT_POWER)
    targets = (unit_rows(joint_map(vectors))[0] for vectors in parts())
    return io.memory_map(targets, layout.encoder_scratch)


def read_image_vectors(layout: Layout) -> ImageVectors:
    """Return the concatenated vectors of IMAGE_TOKENS of all images."""
    texts = io.Texts(layout.items)
    if "image" not in _present_modalities(layout, texts):
        nothing = np.zeros((len(texts), 0), np.float32)
        return ImageVectors(nothing, np.full(len(texts), -1), ())

    sets = [FeatureSet.of(layout, name) for name in IMAGE_TOKENS]
    shards = zip(*(feature_set.vectors() for feature_set in sets), strict=True)
    vectors = io.memory_map(map(np.hstack, shards), layout.encoder_scratch)
    starts = range(0, len(vectors), ARRAY_BLOCK_ITEMS)
    has_image = [vectors[start : start + ARRAY_BLOCK_ITEMS].any(axis=1) for start in starts]
    row = np.where(np.concatenate(has_image), np.arange(len(vectors)), -1)
    widths = tuple(feature_set.width for feature_set in sets) if (row >= 0).any() else ()
    return ImageVectors(vectors, row, widths)


def _present_modalities(layout: Layout, texts: io.Texts) -> set[str]:
    present = set()
    for path in io.shards(layout.images, "images"):
        shard = io.read_table(path, schemas.IMAGES, ["status"])
        if "ok" in shard["status"].unique().to_pylist():
            present.add("image")
            break
    if any(map(str.strip, texts)):
        present.add("text")
    return present


def _read_tokenizer(
    layout: Layout, texts: io.Texts, params: Pretrain, obtain: Obtain
) -> Tokenizer | None:
    """Read the tokenizer, which is copied or trained first; None for a dataset without texts."""
    path = layout.encoder.tokenizer
    if not path.is_file():
        model: bytes | None
        if params.tokenizer is not None:
            model = obtain(params.tokenizer).read_bytes()
        else:
            # samples evenly from the whole catalogue
            step = max(1, math.ceil(len(texts) / MAX_TRAINING_LINES))
            model = train_model(islice(texts, 0, None, step), VOCAB)
        if model is None:
            return None
        io.write_bytes(path, model)
    return Tokenizer(path.read_bytes())


def _tokenise(
    layout: Layout,
    texts: io.Texts,
    tokenizer: Tokenizer | WordPieces | None,
    max_tokens: int,
    max_parts: int,
) -> TextIds:
    if tokenizer is None:  # there are no texts
        nothing = [np.array([BOS, EOS])] * len(texts)
        return TextIds(nothing, np.arange(len(texts) + 1), np.zeros(len(texts), np.int64))

    part_lengths: list[int] = []
    part_counts: list[int] = []
    text_lengths: list[int] = []

    def ids_of_parts() -> Iterator[np.ndarray]:
        for start in range(0, len(texts), io.PART):
            for ids in tokenizer.encode(texts.slice(start, io.PART).to_pylist()):
                parts = split_text(ids, max_tokens, max_parts)
                part_lengths.extend(map(len, parts))
                part_counts.append(len(parts))
                text_lengths.append(len(ids))
                yield np.concatenate(parts).astype(np.int32)

    flat = io.memory_map(ids_of_parts(), layout.encoder_scratch)
    parts = TextParts(flat, np.cumsum(part_lengths))
    return TextIds(parts, np.cumsum([0, *part_counts]), np.array(text_lengths))


@torch.no_grad()
def build_network(
    pieces: WordPieces,
    predicted: int,
    images: ImageVectors,
    maps: Sequence[Whitening],
    codes: int,
) -> Mini:
    """Return `mini` with MiniLM's weights, and image tokens projected by `maps`."""
    config = MiniConfig(
        images.widths, pieces.vocab, positions=LONGEST, codes=codes, pieces=predicted
    )
    network = Mini(config)
    copy_minilm(network, pieces)
    nn.init.normal_(network.image.mask_token, std=MASK_TOKEN_SD)
    nn.init.normal_(network.image.positions, std=POSITION_SD)
    for token, projection in enumerate(maps):
        linear = network.image.projections[token]
        assert isinstance(linear, nn.Linear)
        vectors = images.tokens(images.items[:ARRAY_BLOCK_ITEMS])[token]
        _start_projection(linear, projection, vectors)
    if network.mlm_head is not None:
        network.mlm_head.weight.copy_(network.text.words.weight[:predicted])
        network.mlm_head.bias.zero_()
    return network


def _start_projection(linear: nn.Linear, projection: Whitening, vectors: np.ndarray) -> None:
    """Start as principal components under a random rotation into D dimensions."""
    components = projection.map.shape[1]
    rotation = torch.linalg.qr(torch.randn(linear.out_features, components)).Q
    squares = np.square(projection.apply(vectors)).sum(axis=1)
    length = float(np.sqrt(squares.mean()))
    scale = INITIAL_LENGTH / length if length else 0.0

    weight: Tensor = rotation @ torch.from_numpy(projection.map.T) * scale  # [D, W_p]
    linear.weight.copy_(weight)
    linear.bias.copy_(-weight @ torch.from_numpy(projection.mean))
