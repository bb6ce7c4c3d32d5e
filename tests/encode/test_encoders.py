"""Feature sets: whatever items have, in item order, independent of batches and interruptions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import featured
import numpy as np
import pytest
import torch
import toy
from coloured import Item, catalogue
from featured import vectors
from networks import jpeg
from pipeline.features import control
from pipeline.features.registry import settings
from safetensors.numpy import save as save_arrays
from safetensors.torch import save_file
from torch.nn import Sequential
from torch.nn.modules.module import register_module_forward_hook

from alignrec.commands.params import Params
from pipeline import io as files
from pipeline.beit3 import tokenizer
from pipeline.beit3.config import Config
from pipeline.beit3.network import BEiT3
from pipeline.encode import batching
from pipeline.encode.base import Context, Encoder
from pipeline.encode.beit3 import BEiT3Items
from pipeline.encode.params import Encode
from pipeline.encode.registry import ENCODERS
from pipeline.layout import Layout
from pipeline.ops import whitening
from pipeline.run import Run
from pipeline.stage import perform
from stages.order import STAGES
from tests.encode.test_kinds import ODD

TEXTS = ["red apple", "", "a blue car with four doors", "", "green tree " * 3000, "é 日本語 🙂", "bus", "red car"]
COLOURS = ["red", "green", None, None, "blue", "grey", None, "red"]


IMAGES = [None if c is None else jpeg(c) for c in COLOURS]


@pytest.fixture(scope="module")
def model() -> bytes:
    """A tokenizer."""
    actual = tokenizer.train(TEXTS[:3] * 9, 60)
    assert actual is not None
    return actual


@pytest.fixture(scope="module")
def network(model: bytes) -> BEiT3:
    torch.manual_seed(0)
    vocab = tokenizer.Tokenizer(model).vocab
    return BEiT3(Config(image=32, patch=16, vocab=vocab, width=32, layers=2, heads=2, ffn=64, positions=34))


@pytest.fixture(scope="module")
def beit3(network: BEiT3, model: bytes) -> BEiT3Items:
    return BEiT3Items(network, tokenizer.Tokenizer(model), 128)


def run(encoder: BEiT3Items, texts: Sequence[str], images: Sequence[bytes | None], size: int) -> np.ndarray:
    return batching.encode(encoder, texts, images, size, lambda n: None).vectors


# --- batches


def test_a_batch_equals_single_items_in_order(beit3: BEiT3Items) -> None:
    alone = np.concatenate([run(beit3, [t], [p], 1) for t, p in zip(TEXTS, IMAGES, strict=True)])
    for size in (1, 3, 64):
        np.testing.assert_allclose(run(beit3, TEXTS, IMAGES, size), alone, atol=2e-6)


def test_workers_change_nothing(beit3: BEiT3Items) -> None:
    """More batches than threads, and threads than batches: the same bytes."""
    texts = [f"{'red ' * (i % 9)}{i}" if i % 3 else "" for i in range(40)]
    images = [IMAGES[i % 8] for i in range(40)]
    actual = [batching.encode(beit3, texts, images, 3, workers=n).vectors.tobytes() for n in (1, 2, 7, 7)]
    assert len(set(actual)) == 1


@pytest.mark.parametrize("name", ["beit3", "minilm"])
def test_any_text_makes_a_vector_or_is_flagged(name: str, beit3: BEiT3Items, context: Context) -> None:
    texts = [*ODD.values(), "", " \t\n\u3000", "a" + "\u0301" * 3000]
    actual = batching.encode(beit3 if name == "beit3" else make(name, context), texts, [None] * len(texts), 4)
    assert np.isfinite(actual.vectors).all()
    assert actual.has_text.tolist() == [bool(text.strip()) for text in texts]
    assert (np.abs(actual.vectors).max(axis=1) > 0).tolist() == actual.has_text.tolist()


def test_batches_are_of_one_kind_and_sorted_by_length() -> None:
    rng = np.random.default_rng(0)
    image, text, length = rng.random(200) < 0.7, rng.random(200) < 0.7, rng.integers(2, 50, 200)
    actual = list(batching.batches(image, text, length, 16))
    assert sorted(np.concatenate(actual)) == np.flatnonzero(image | text).tolist()
    for rows in actual:
        assert len(rows) <= 16
        assert len({(image[i], text[i]) for i in rows}) == 1
        assert (np.diff(length[rows]) >= 0).all()


# --- encoders of other people


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Layout(tmp_path, "shop"), Encode())


def make(name: str, context: Context) -> Encoder:
    return ENCODERS[name].make(context, settings({}, name))


def test_minilm_and_cnn_stand_side_by_side(context: Context) -> None:
    encoder = make("minilm-cnn", context)
    assert encoder.width == 384 + 1280
    actual = run(encoder, ["red apple", "", "bus"], [IMAGES[0], IMAGES[1], None], 2)
    np.testing.assert_allclose(np.linalg.norm(actual[:, :384], axis=1), [1, 0, 1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(actual[:, 384:], axis=1), [1, 1, 0], atol=1e-5)
    alone = run(make("cnn", context), [""], [IMAGES[1]], 1)[0]
    np.testing.assert_allclose(actual[1, 384:], alone / np.linalg.norm(alone), atol=1e-5)


@pytest.mark.parametrize("stage", [1, 5, 7])
def test_a_stage_of_the_cnn_gives_mean_and_deviation_of_its_maps(stage: int) -> None:
    from pipeline.encode.cnn import load

    encoder, seen = load(stage), list[torch.Tensor]()
    hook = register_module_forward_hook(lambda module, _, out: seen.append(out) if type(module) is Sequential else None)
    vectors = encoder.encode(encoder.prepare([one for one in IMAGES if one][:2], None))
    hook.remove()
    maps = seen[-1]
    assert len(seen) == stage
    assert vectors.shape == (2, encoder.width)
    mean, deviation = vectors.chunk(2, 1)
    torch.testing.assert_close(mean, maps.flatten(2).mean(2))
    torch.testing.assert_close(deviation, maps.flatten(2).std(2))


# --- controls and imports


def test_shuffled_gives_nobody_their_own() -> None:
    for n in (2, 3, 50):
        source = control.shuffled(n, seed=4)
        assert sorted(source) == list(range(n))
        assert (source != np.arange(n)).all()
    assert control.shuffled(1, seed=4).tolist() == [0]


# --- the stage


def pretrained(root: Path, network: BEiT3, model: bytes) -> None:
    layout = Layout(root, "shop")
    files.write_bytes(layout.encoder.tokenizer, model)
    files.write_json(layout.encoder.config, vars(network.config))
    save_file(network.state_dict(), layout.encoder.weights)


def dataset(root: Path, imported: dict[str, np.ndarray], **given: object) -> Params:
    """Write the inputs of the stage, five images per file."""
    layout = catalogue(root, [Item(f"A{i}", *both) for i, both in enumerate(zip(TEXTS, COLOURS, strict=True))])
    layout.raw.mkdir(parents=True, exist_ok=True)
    for name, array in imported.items():
        np.save(layout.raw / f"{name}.npy", array)
    files.write_json(layout.sources, [{"role": f"feature:{name}", "name": f"{name}.npy"} for name in imported])
    return toy.params(encode={"shard_rows": 3, "batch_size": 2, **given})


def stage(root: Path, params: Params) -> dict[str, bytes]:
    return featured.stage(Layout(root, "shop"), params)


BEIT3 = ["beit3", "beit3-image-masked", "beit3-text-masked"]


def test_every_feature_set_is_whole_and_in_item_order(
    tmp_path: Path, network: BEiT3, model: bytes, beit3: BEiT3Items
) -> None:
    params = dataset(tmp_path, {"ready": np.arange(16.0).reshape(8, 2)}, encoders=BEIT3)
    pretrained(tmp_path, network, model)
    made = stage(tmp_path, params)
    assert set(made) == {*BEIT3, "ready", "random", "shuffled", "constant"}
    layout = Layout(tmp_path, "shop")
    tables = {name: files.read_features(layout.features(name)) for name in made}
    assert {len(t) for t in tables.values()} == {len(TEXTS)}
    np.testing.assert_allclose(files.matrix(tables["beit3"]["vector"]), run(beit3, TEXTS, IMAGES, 2), atol=2e-6)
    assert tables["ready"]["has_image"].null_count == len(TEXTS)
    assert tables["beit3-image-masked"]["has_image"].to_pylist() == [False] * len(TEXTS)
    assert tables["random"]["vector"].type == tables["beit3"]["vector"].type
    given = {
        tuple(v): a
        for v, a in zip(tables["beit3"]["vector"].to_pylist(), tables["beit3"]["asin"].to_pylist(), strict=True)
    }
    moved = [given[tuple(v)] for v in tables["shuffled"]["vector"].to_pylist()]
    assert sorted(moved) == sorted(given.values())
    assert all(a != b for a, b in zip(moved, tables["shuffled"]["asin"].to_pylist(), strict=True))


def test_the_untrained_network_is_another_one_each_time_the_same_and_whitened(
    tmp_path: Path, network: BEiT3, model: bytes
) -> None:
    params = dataset(tmp_path, {}, encoders=["beit3", "beit3-untrained"], controls=[])
    pretrained(tmp_path, network, model)
    plain = stage(tmp_path, params)
    layout = Layout(tmp_path, "shop")
    raw = vectors(layout, "beit3-untrained")
    trained = vectors(layout, "beit3")
    assert raw.shape == trained.shape
    assert np.abs(raw - trained).max() > 0.1
    shutil.rmtree(layout.features("beit3-untrained"))
    assert stage(tmp_path, params) == plain

    files.write_bytes(layout.encoder.whitening, save_arrays(whitening.fit(trained)._asdict()))
    stage(tmp_path, params)
    whitened = vectors(layout, "beit3-untrained")
    has_any = raw.any(axis=1)
    assert np.abs(whitened[has_any].mean(axis=0)).max() < 1e-3  # whitening of its own, not the trained network's
    assert not whitened[~has_any].any()


def test_whether_cls_is_whitened_is_the_feature_sets_own_setting(tmp_path: Path, network: BEiT3, model: bytes) -> None:
    names = ["beit3", "beit3-raw", "beit3-text-masked", "beit3-untrained"]
    params = dataset(tmp_path, {}, encoders=names, controls=[])
    pretrained(tmp_path, network, model)
    layout = Layout(tmp_path, "shop")
    cls = run(BEiT3Items(network, tokenizer.Tokenizer(model), 128), TEXTS, IMAGES, 2)
    fitted = whitening.fit(cls[cls.any(axis=1)])
    files.write_bytes(layout.encoder.whitening, save_arrays(fitted._asdict()))

    def encoded() -> dict[str, np.ndarray]:
        stage(tmp_path, params)
        return {name: vectors(layout, name) for name in names}

    white = encoded()
    np.testing.assert_allclose(white["beit3-raw"], cls, atol=2e-6)
    np.testing.assert_allclose(white["beit3"][0], fitted(cls)[0], atol=1e-3)
    assert np.abs(white["beit3"] - cls).max() > 0.1
    params = params.model_copy(update={"encoders": {"beit3": {"whiten": False}}})
    plain = encoded()
    np.testing.assert_array_equal(plain["beit3"], white["beit3-raw"])
    np.testing.assert_array_equal(plain["beit3-raw"], white["beit3-raw"])
    for variant in names[2:]:
        assert np.abs(plain[variant] - white[variant]).max() > 0.1


def test_two_parts_and_the_whole_after_them_give_the_same_files(tmp_path: Path, network: BEiT3, model: bytes) -> None:
    params = dataset(tmp_path, {}, encoders=[*BEIT3[:2], "tfidf"])
    pretrained(tmp_path, network, model)
    whole = stage(tmp_path, params)
    layout = Layout(tmp_path, "shop")
    shutil.rmtree(layout.folder("encode"))
    toy.ended(layout)
    for part, expected in ((2, {1}), (1, {0, 1, 2})):  # three files of three rows
        going = Run("encode", "shop", params, tmp_path)
        going.part = part, 2
        perform(going, STAGES["encode"], lambda _: None)
        made = {name: files.shards(layout.features(name), "features") for name in layout.feature_sets()}
        assert made == {n: [files.shard(layout.features(n), "features", i) for i in expected] for n in made}
        assert made.keys() == {*BEIT3[:2], "tfidf"}, "controls are made of whole sets"
    assert not layout.run_record("encode").exists()
    times = {path: path.stat().st_mtime_ns for paths in made.values() for path in paths}
    assert stage(tmp_path, params) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
