"""Feature sets are in item order, for items with any modality, whatever the batches and interruptions."""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from pictures import plain
from safetensors.numpy import save as save_arrays
from safetensors.torch import save_file
from shop import toy
from shop.featured import Item, catalogue, stage, vectors
from torch.nn import Sequential
from torch.nn.modules.module import register_module_forward_hook

from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import tokenizer
from alignrec.pipeline.beit3.config import BEiT3Config
from alignrec.pipeline.beit3.encoders import BEiT3Items
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.encoders.chunks import (
    MAX_WORD_CHARACTERS,
    Reading,
    Splitter,
    SplitText,
    locate_by_words,
    split_tokenized,
)
from alignrec.pipeline.encoders.registry import Encoder, find_network
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import decode_squares, normalise_pixels
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import shuffled_order
from alignrec.pipeline.release.loading import Project, load_encoders
from alignrec.pipeline.runtime.layout import Layout
from tests.encoders.test_kinds import ODD

TEXTS = ["red apple", "", "a blue car with four doors", "", "green tree " * 3000, "é 日本語 🙂", "bus", "red car"]
COLOURS = ["red", "green", None, None, "blue", "grey", None, "red"]
WHITENED_ROUNDING = 1e-4
"""of whitened vectors in batches of other shapes: whitening multiplies the 1e-6 of CLS"""


IMAGES = [None if c is None else plain(c) for c in COLOURS]


@pytest.fixture(scope="module")
def model() -> bytes:
    """A tokenizer."""
    actual = tokenizer.train_model(TEXTS[:3] * 9, 60)
    assert actual is not None
    return actual


@pytest.fixture(scope="module")
def network(model: bytes) -> BEiT3:
    torch.manual_seed(0)
    vocab = tokenizer.Tokenizer(model).vocab
    return BEiT3(BEiT3Config(image=32, patch=16, vocab=vocab, width=32, layers=2, heads=2, ffn=64, positions=34))


@pytest.fixture(scope="module")
def beit3(network: BEiT3, model: bytes) -> BEiT3Items:
    return BEiT3Items(network, tokenizer.Tokenizer(model), 128)


def run(encoder: Encoder, texts: Sequence[str], images: Sequence[bytes | None], size: int) -> np.ndarray:
    return batching.encode_items(encoder, texts, images, size, lambda n: None).vectors


# --- batches


def test_a_batch_equals_single_items_in_order(beit3: BEiT3Items) -> None:
    alone = np.concatenate([run(beit3, [t], [p], 1) for t, p in zip(TEXTS, IMAGES, strict=True)])
    for size in (1, 3, 64):
        np.testing.assert_allclose(run(beit3, TEXTS, IMAGES, size), alone, atol=2e-6)


def test_a_long_text_is_the_mean_of_its_parts_by_tokens_with_the_image_in_each(network: BEiT3, model: bytes) -> None:
    pieces = tokenizer.Tokenizer(model)
    words, image = "red car " * 12 + "bus", plain("red")
    (ids,) = pieces.encode([words])
    parts = tokenizer.split_text(ids, 20, 9)
    assert len(parts) > 2
    assert [i for part in parts for i in part[1:-1]] == ids.tolist()
    pixels = normalise_pixels(decode_squares([image], 32))
    with torch.inference_mode():
        each = [network.summary(pixels, torch.from_numpy(part)[None])[0] for part in parts]
    expected = np.average(torch.stack(each), axis=0, weights=[len(part) - 2 for part in parts])
    whole = batching.encode_items(BEiT3Items(network, pieces, 20, 9), [words, "bus"], [image, image], 2)
    np.testing.assert_allclose(whole.vectors[0], expected, atol=1e-5)
    assert whole.reading is not None
    assert whole.reading.facts()["cut"] == 0
    cut = batching.encode_items(BEiT3Items(network, pieces, 20, 1), [words, "bus"], [image, image], 2)
    np.testing.assert_allclose(cut.vectors[1], whole.vectors[1], atol=1e-5)
    assert cut.reading is not None
    assert cut.reading.facts()["cut"] == 1


def test_workers_change_nothing(beit3: BEiT3Items) -> None:
    """With more batches than threads, or fewer, the bytes are the same."""
    texts = [f"{'red ' * (i % 9)}{i}" if i % 3 else "" for i in range(40)]
    images = [IMAGES[i % 8] for i in range(40)]
    actual = [batching.encode_items(beit3, texts, images, 3, workers=n).vectors.tobytes() for n in (1, 2, 7, 7)]
    assert len(set(actual)) == 1


@pytest.mark.parametrize("name", ["beit3", "minilm"])
def test_any_text_makes_a_vector_or_is_flagged(name: str, beit3: BEiT3Items) -> None:
    texts = [*ODD.values(), "", " \t\n\u3000", "a" + "\u0301" * 3000]
    encoder = beit3 if name == "beit3" else find_network({}, name, Path("nowhere")).load()
    actual = batching.encode_items(encoder, texts, [None] * len(texts), 4)
    assert np.isfinite(actual.vectors).all()
    assert actual.has_text.tolist() == [bool(text.strip()) for text in texts]
    assert (np.abs(actual.vectors).max(axis=1) > 0).tolist() == actual.has_text.tolist()


def test_batches_are_of_one_kind_and_sorted_by_length() -> None:
    rng = np.random.default_rng(0)
    image, text, length = rng.random(200) < 0.7, rng.random(200) < 0.7, rng.integers(2, 50, 200)
    actual = list(batching.plan_batches(image, text, length, 16))
    assert sorted(np.concatenate(actual)) == np.flatnonzero(image | text).tolist()
    for rows in actual:
        assert len(rows) <= 16
        assert len({(image[i], text[i]) for i in rows}) == 1
        assert (np.diff(length[rows]) >= 0).all()


# --- encoders of packages


def test_the_cnn_is_timms_network_with_its_batch_norms_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignrec.pipeline.encoders import timm

    folded = timm.CNN()
    monkeypatch.setattr(timm, "fold_batch_norms", lambda network: None)
    pixels = folded.prepare([one for one in IMAGES if one][:2], None)
    torch.testing.assert_close(folded.encode(pixels), timm.CNN().encode(pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at", [1, 5, 7])
def test_a_stage_of_the_cnn_gives_mean_and_deviation_of_its_maps(at: int) -> None:
    from alignrec.pipeline.encoders.timm import CNN

    encoder, seen = CNN(at), list[torch.Tensor]()
    hook = register_module_forward_hook(lambda module, _, out: seen.append(out) if type(module) is Sequential else None)
    vectors = encoder.encode(encoder.prepare([one for one in IMAGES if one][:2], None))
    hook.remove()
    maps = seen[-1]
    assert len(seen) == at
    assert vectors.shape == (2, encoder.width)
    mean, deviation = vectors.chunk(2, 1)
    torch.testing.assert_close(mean, maps.flatten(2).mean(2))
    torch.testing.assert_close(deviation, maps.flatten(2).std(2))


# --- the stage


ALL = ["beit3", "beit3-raw", "beit3-image-masked", "beit3-text-masked", "beit3-untrained"]


def params(*sets: str, names: Sequence[str] = (), **own: Any) -> Params:
    """Return parameters for sets of the trained network and for encoders `names`; three files of three items."""
    encode = {"encoders": list(names), "shard_rows": 3, "batch_size": 2}
    combine = {"sets": {}, "controls": own.pop("controls", [])}
    return toy.params(encode=encode, beit3={"sets": list(sets), **own}, combine=combine)


@pytest.fixture
def layout(tmp_path: Path, network: BEiT3, model: bytes) -> Layout:
    """A shop with a pre-trained network and its map of CLS."""
    layout = catalogue(tmp_path, [Item(f"A{i}", *both) for i, both in enumerate(zip(TEXTS, COLOURS, strict=True))])
    io.write_bytes(layout.encoder.tokenizer, model)
    io.write_json(layout.encoder.config, vars(network.config))
    save_file(network.state_dict(), layout.encoder.weights)
    return layout


@pytest.fixture
def cls(layout: Layout, beit3: BEiT3Items) -> np.ndarray:
    """CLS of all items; the map that whitens it is also written."""
    cls = run(beit3, TEXTS, IMAGES, 2)
    io.write_bytes(layout.encoder.whitening, save_arrays(projections.fit_whitening(cls[cls.any(axis=1)])._asdict()))
    return cls


def test_sets_of_the_trained_network_differ_by_map_modality_and_training(layout: Layout, cls: np.ndarray) -> None:
    stage(layout, params(*ALL))
    made = {name: vectors(layout, name) for name in ALL}
    fitted = projections.fit_whitening(cls[cls.any(axis=1)])
    np.testing.assert_allclose(made["beit3-raw"], cls, atol=2e-6)
    np.testing.assert_allclose(made["beit3"][0], fitted.apply(cls)[0], atol=1e-3)
    assert not made["beit3-image-masked"][1].any()
    assert not made["beit3-text-masked"][2].any()
    for name, unmasked in (("beit3-image-masked", 2), ("beit3-text-masked", 1)):
        np.testing.assert_allclose(made[name][unmasked], made["beit3"][unmasked], atol=WHITENED_ROUNDING)
    has_any = cls.any(axis=1)
    drawn = made["beit3-untrained"]
    assert np.abs(drawn - made["beit3"])[has_any].max() > 0.1
    assert np.abs(drawn[has_any].mean(axis=0)).max() < 1e-3, "whitening of its own, not the trained network's"
    assert not drawn[~has_any].any()
    flags = io.read_features(layout.features("beit3-image-masked"))
    assert flags["has_image"].to_pylist() == [False] * len(TEXTS)
    loaded = load_encoders(Project(layout), ["beit3", "beit3-image-masked"])
    assert loaded["beit3"].encoder is loaded["beit3-image-masked"].encoder, "one network"
    again = run(loaded["beit3"].encoder, TEXTS, IMAGES, 2)
    np.testing.assert_allclose(again, made["beit3"], atol=WHITENED_ROUNDING)


def test_raw_cls_is_masked_without_a_map(layout: Layout, cls: np.ndarray, beit3: BEiT3Items) -> None:
    names = ["beit3-raw", "beit3-raw-image-masked", "beit3-raw-text-masked"]
    stage(layout, params(*names))
    nothing, empty = [None] * len(TEXTS), [""] * len(TEXTS)
    expected = [cls, run(beit3, TEXTS, nothing, 2), run(beit3, empty, IMAGES, 2)]
    loaded = load_encoders(Project(layout), names)
    for name, raw, texts, images in zip(names, expected, (TEXTS, TEXTS, empty), (IMAGES, nothing, IMAGES), strict=True):
        np.testing.assert_allclose(vectors(layout, name), raw, atol=1e-5)
        np.testing.assert_allclose(run(loaded[name].encoder, texts, images, 2), raw, atol=1e-5)


def test_without_whitening_the_sets_are_cls_itself(layout: Layout, cls: np.ndarray) -> None:
    white = stage(layout, params(*ALL))
    plain = stage(layout, params(*ALL, whiten=False))
    np.testing.assert_array_equal(vectors(layout, "beit3"), vectors(layout, "beit3-raw"))
    np.testing.assert_allclose(vectors(layout, "beit3"), cls, atol=2e-6)
    assert all(plain[name] != white[name] for name in ("beit3-image-masked", "beit3-untrained"))


def test_shuffled_gives_nobody_their_own(layout: Layout) -> None:
    for n in (2, 3, 50):
        source = shuffled_order(n, seed=4)
        assert sorted(source) == list(range(n))
        assert (source != np.arange(n)).all()
    assert shuffled_order(1, seed=4).tolist() == [0]
    stage(layout, params("beit3", controls=["shuffled", "random"]))
    own, moved = (vectors(layout, name) for name in ("beit3", "shuffled"))
    assert sorted(own.tolist()) == sorted(moved.tolist())
    assert vectors(layout, "random").shape == own.shape


# --- long texts are encoded in chunks: all words once, in order; short texts are unchanged


UNKNOWN = 0


def letters(texts: list[str]) -> list[list[int]]:
    """Return a token per four letters, as of a tokenizer whose vocabulary has no word; capitals are unknown."""
    pieces = [[word[i : i + 4] for word in text.split() for i in range(0, len(word), 4)] for text in texts]
    return [[UNKNOWN if any(map(str.isupper, piece)) else 1 for piece in text] for text in pieces]


class Letters(Splitter):
    """Splits texts by `letters`, and remembers the texts of each call."""

    def __init__(self, room: int, most: int) -> None:
        self.room, self.most, self.calls = room, most, list[Sequence[str]]()

    def split_texts(self, texts: Sequence[str]) -> list[SplitText]:
        self.calls.append(texts)
        return [split_tokenized(locate_by_words(text, letters, UNKNOWN), self.room, self.most) for text in texts]


def test_a_text_that_fits_stays_as_it_is() -> None:
    chunks = Letters(3, 9).chunks(["  one two ", "three"])
    assert chunks.parts == ["  one two ", "three"]
    vectors = torch.arange(4.0).reshape(2, 2)
    assert chunks.average_parts([vectors]) is vectors


@pytest.mark.parametrize("room", [1, 2, 5, 50])
def test_a_longer_text_is_cut_between_words_and_nothing_is_lost(room: int) -> None:
    texts = ["red apple", "a blue car with four doors " * 9, "x" * 1000, "tail"]
    splitter = Letters(room, 10_000)
    chunks = splitter.chunks(texts)
    for number, text in enumerate(texts):
        own = [part for part, owner in zip(chunks.parts, chunks.owner, strict=True) if owner == number]
        assert "".join(own) == text
    assert [len(ids) for ids in letters(chunks.parts)] == chunks.tokens.tolist()
    assert max(chunks.tokens) <= room
    reading = splitter.reading(texts)
    assert reading
    assert (reading.read == reading.there).all()
    if room > 1:  # so that no word of these is cut
        assert reading.there[[0, 1, 3]].tolist() == [len(ids) for ids in letters([texts[0], texts[1], texts[3]])]


def test_what_comes_after_the_last_chunk_is_not_read_and_counted() -> None:
    assert Letters(2, 2).chunks(["aa bb cc dd ee", "aa"]).parts == ["aa bb ", "cc dd ", "aa"]
    reading = Letters(2, 2).reading(["aa bb cc dd EE", "aa"])
    assert reading
    assert [x.tolist() for x in reading] == [[4, 1], [5, 1], [0, 0]]
    assert reading.facts() == {"items": 2, "read": 1.8, "cut": 1}
    reading = Letters(2, 2).reading(["Aa bb cc dd ee", "Aa"])
    assert reading
    assert reading.facts() == {"items": 2, "read": 0.6, "cut": 1, "unknown": 1.2, "unread": 1}
    few = Reading(np.array([8, 8]), np.array([8, 8]), np.array([2, 3]))
    assert few.facts() == {"items": 2, "read": 1.375, "cut": 0, "unknown": 0.625, "unread": 1}


def test_a_text_is_split_once_for_its_count_and_its_batch() -> None:
    splitter = Letters(2, 9)
    reading = splitter.reading(["aa bb cc", "dd", "dd"])
    assert reading
    assert reading.read.tolist() == [3, 1, 1]
    assert splitter.chunks(["dd", "aa bb cc"]).parts == ["dd", "aa bb ", "cc"]
    assert splitter.calls == [["aa bb cc", "dd"]]
    assert splitter.chunks(["dd", "new"]).parts == ["dd", "new"]


def test_vectors_are_averaged_by_tokens_whatever_their_order() -> None:
    chunks = Letters(2, 9).chunks(["aa bb cc", "dd"])
    assert sorted(chunks.parts) == ["aa bb ", "cc", "dd"]
    vectors = [torch.tensor([[float(ord(chunks.parts[i][0]))] for i in group]) for group in chunks.groups()]
    a, c, d = map(ord, "acd")
    assert chunks.average_parts(vectors).tolist() == [[pytest.approx((2 * a + c) / 3)], [d]]


def test_a_text_of_megabytes_is_not_tokenised_whole() -> None:
    longest = 0

    def tokenize(texts: list[str]) -> list[list[int]]:
        nonlocal longest
        longest = max(longest, *map(len, texts))
        return letters(texts)

    split = split_tokenized(locate_by_words("y" * 1_000_000, tokenize, UNKNOWN), 100, 3)
    assert (longest, split.tokens, split.there) == (MAX_WORD_CHARACTERS, [100] * 3, 250_000)


def test_a_long_word_that_is_half_of_another_is_split_too() -> None:
    text = f"{'a' * 64} {'a' * 128}"
    split = split_tokenized(locate_by_words(text, letters, UNKNOWN), 10, 99)
    assert "".join(split.parts) == text
    assert max(split.tokens) <= 10


@pytest.mark.parametrize("name", ["sentences", "bert", "qwen", "open_clip"])
def test_parts_of_a_text_fit_the_network_and_end_between_words(tmp_path: Path, name: str) -> None:
    kind = {"sentences": "sentence-transformers", "open_clip": "open_clip"}.get(name, "huggingface")
    settings = {"kind": kind, "model": str(getattr(networks, name)(tmp_path / name)), "chunks": 1000}
    encoder: Any = find_network({"net": settings}, "net", tmp_path).load()
    rng = random.Random(0)
    words = ["the", "a\u0301", "\u0301b", "電影", "[SEP]", "x[MASK]y", "İ", "don't", "🙂", "한", "<|im_end|>"]
    words += ["\x0b", "p\x1cq", "\u3000"]
    texts = []
    for n in (1, 3, 9, 30, 100, 3000):
        random_words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 9))) for _ in range(n)]
        texts.append(" ".join(rng.choice([word, rng.choice(words)]) for word in random_words))
    texts += [c * n for c in "a電é" for n in (255, 257, 1000)]

    for text, split in zip(texts, encoder.split_texts(texts), strict=True):
        whole = encoder.break_controls(text)
        assert "".join(split.parts) == whole
        assert sum(split.tokens) == split.there
        assert max(split.tokens) <= encoder.room
        ends = np.cumsum([len(part) for part in split.parts])[:-1]
        for part, end in zip(split.parts, ends, strict=False):
            if not re.search(r"\s", whole[end - 1 : end + 1]):  # a word longer than the network's input
                assert len(part.split()) == 1
