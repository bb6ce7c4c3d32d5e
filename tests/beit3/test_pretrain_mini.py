"""Pre-training of mini starts from MiniLM, and is read by `encode`."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from shop.pretraining import UNTAUGHT, digests, features, history, shop, write_params

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.beit3 import minilm, stored
from alignrec.pipeline.beit3.params import IMAGE_TOKENS, MINI, Pretrain
from alignrec.pipeline.encoders.timm import CNN
from alignrec.pipeline.features import batching
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.loading import Project, load_encoder
from alignrec.pipeline.runtime.layout import Layout

ITEMS = 32  # of which one is held out, also without those that lack an image or a text
NO_TEXT, NO_IMAGE = np.arange(ITEMS) % 12 == 0, np.arange(ITEMS) % 10 == 0
SHORT: dict[str, Any] = {"size": "mini", "steps": 1, "batch_size": 8}
FILES = [
    *("config.json", "encoder.safetensors", "history.json", "run.json", "start.safetensors"),
    *("whitening.safetensors", "wordpieces.json"),
]


def test_its_defaults_are_its_own_and_what_is_given_stands() -> None:
    mini = Pretrain(size="mini")
    assert {key: getattr(mini, key) for key in MINI} == MINI
    assert (mini.text_mask, mini.weight_decay) == (0.25, 0.01)
    assert Pretrain(size="mini", steps=7).steps == 7
    assert Pretrain(size="small").steps == 3000
    with pytest.raises(ValueError, match=r"mini starts from MiniLM, so it takes no init"):
        Pretrain(size="mini", init="x.pth")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with the feature sets that pre-training reads."""
    root = tmp_path_factory.mktemp("encoded")
    shop(root, n=ITEMS, **SHORT)
    features(root, *IMAGE_TOKENS, "tfidf")
    return root


def copied(encoded: Path, to: Path, **changed: Any) -> Path:
    shutil.copytree(encoded, to, dirs_exist_ok=True)
    shop(to, n=ITEMS, **SHORT | changed)
    return to


def test_its_files_are_encoded_from(encoded: Path, tmp_path: Path) -> None:
    copied(encoded, tmp_path / "whole", steps=2, distill=1.0, distill_from=["tfidf"])
    assert [line["step"] for line in history(tmp_path / "whole")] == [2]
    assert sorted(digests(tmp_path / "whole")) == FILES

    made = features(
        tmp_path / "whole", "beit3", "beit3-raw", "beit3-untrained", "beit3-image-masked", "beit3-text-masked"
    )
    assert {made[name].shape[1] for name in ("beit3-image-masked", "beit3-text-masked")} == {made["beit3"].shape[1]}
    both = ~NO_TEXT & ~NO_IMAGE
    for name in ("beit3-image-masked", "beit3-text-masked"):
        assert (np.abs(made[name] - made["beit3"])[both].max(axis=1) > 1e-4).all(), name
    assert made["beit3-untrained"][both].any(axis=1).all()
    text, image = np.split(made["beit3-raw"], 2, axis=1)
    assert not image[NO_IMAGE].any()
    assert not text[NO_TEXT].any()
    no_image = NO_IMAGE & ~NO_TEXT
    np.testing.assert_allclose(made["beit3"][no_image], made["beit3-image-masked"][no_image], atol=1e-4)


@pytest.fixture(scope="module")
def untrained(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copied(encoded, tmp_path_factory.mktemp("untrained"), steps=0)
    history(root)
    return root


def test_before_training_its_text_experts_are_minilms(untrained: Path) -> None:
    files = Layout(untrained, "toy").encoder
    assert 768 in stored.check_files(files)
    ours, theirs = load_file(files.weights), minilm.load_minilm()
    for ours_name, name in (
        ("up.B", "intermediate.dense"),
        ("up.A", "intermediate.dense"),
        ("attention.key.B", "attention.self.key"),
    ):
        assert (ours[f"layers.3.{ours_name}.weight"] == theirs[f"encoder.layer.3.{name}.weight"]).all()
    text = features(untrained, "beit3-raw", "minilm", "beit3-untrained")
    no_image = NO_IMAGE & ~NO_TEXT
    np.testing.assert_allclose(text["beit3-raw"][no_image, :384], text["minilm"][no_image], atol=1e-5)
    assert np.isfinite(text["beit3-untrained"]).all()


def test_image_vectors_are_those_of_encode_and_others_are_made(untrained: Path) -> None:
    with pytest.MonkeyPatch.context() as without:
        without.setattr(CNN, "encode", lambda *_: 1 / 0)
        known = features(untrained, "beit3-raw")["beit3-raw"]
    layout = Layout(untrained, "toy")
    images = io.read_table(io.shard(layout.images, "images", 0), schemas.IMAGES, ["image"])["image"].to_pylist()
    encoder = load_encoder(Project(layout), "beit3-raw").encoder  # knows no catalogue
    made = batching.encode_items(encoder, io.Texts(layout.items).slice(0, ITEMS).to_pylist(), images, 64).vectors
    np.testing.assert_allclose(made, known, atol=1e-3)  # numbers up to 5, from batches of other shapes


def test_a_set_that_it_reads_and_that_is_not_there_is_named(tmp_path: Path) -> None:
    shop(tmp_path, n=ITEMS, **SHORT)
    write_params(tmp_path, encode={"encoders": ["cnn", "descriptors"]})
    with pytest.raises(UserError, match="no feature set 'cnn' of toy"):
        history(tmp_path)


def test_teachers_are_read_by_ridge_regression(encoded: Path, tmp_path: Path) -> None:
    copied(encoded, tmp_path, distill=10.0, distill_from=["tfidf", "cnn"])
    last = history(tmp_path)[-1]
    made = features(tmp_path, "beit3")
    assert last["cosine"] is not None
    assert last["cosine"] > 0.5, "the head starts from what MiniLM knows"
    assert made["beit3"].shape[1] <= 128


@pytest.mark.parametrize(("images", "texts"), [(False, True), (True, False), (False, False)])
def test_the_default_recipe_does_without_what_a_dataset_lacks(tmp_path: Path, images: bool, texts: bool) -> None:
    recipe = {key: Pretrain.model_fields[key].default for key in UNTAUGHT}
    shop(tmp_path, images, texts, ITEMS, **SHORT | recipe | {"steps": 1})
    features(tmp_path, *IMAGE_TOKENS, "minilm")
    curve = history(tmp_path)
    assert len(curve) == (images or texts)
    for last in curve:
        assert (last["mim_accuracy"] is not None) == images
        assert (last["mlm_accuracy"] is not None) == texts
        assert np.isfinite(last["distill_loss"])
        made = features(tmp_path, "beit3")["beit3"]
        assert np.isfinite(made).all()
        assert (made.any(axis=1) == ~(NO_TEXT if texts else NO_IMAGE)).all()
