"""Every kind of third-party model, as a tiny random network: vectors depend on what an item has."""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import networks
import numpy as np
import pictures
import pytest
import torch
from PIL import Image

from alignrec.pipeline.encoders import towers
from alignrec.pipeline.encoders.registry import Encoder, find_network
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import decode_rgb
from alignrec.pipeline.io.errors import UserError, installing
from alignrec.pipeline.linalg import device

BOTH = ("image", "text")
NETWORKS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "siglip": ("huggingface", BOTH, 32),
    "clip": ("huggingface", BOTH, 24),
    "dinov2": ("huggingface", ("image",), 32),
    "bert": ("huggingface", ("text",), 32),
    "qwen": ("huggingface", ("text",), 32),
    "sentences": ("sentence-transformers", ("text",), 32),
    "multimodal": ("sentence-transformers", BOTH, 32),
    "timm": ("timm", ("image",), 32),
    "open_clip": ("open_clip", BOTH, 24),
}
"""name in tests/networks.py -> kind, modalities, width"""
READERS = [name for name, (_, reads, _) in NETWORKS.items() if "text" in reads]
VIEWERS = [name for name, (_, reads, _) in NETWORKS.items() if "image" in reads]
TEXTS = ["red apple", "", "a blue car with four doors", "", "green tree " * 300, "é 日本語 🙂", "bus", "red car"]
COLOURS = ["red", "green", None, None, "blue", "grey", None, "red"]
PICTURES = [None if c is None else pictures.plain(c) for c in COLOURS]
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Build each network once."""
    base = tmp_path_factory.mktemp("networks")
    return cache(lambda name: Path(getattr(networks, name)(base / name)))


ENCODERS: dict[str, Encoder] = {}
"""settings -> encoder, as loading one takes longer than encoding"""


def loaded(folder: Folder, name: str, **given: object) -> Encoder:
    encoders = {"mine": {"kind": NETWORKS[name][0], "model": str(folder(name)), **given}}
    if str(encoders) not in ENCODERS:
        ENCODERS[str(encoders)] = find_network(encoders, "mine", Path("nowhere")).load()
    return ENCODERS[str(encoders)]


def run(encoder: Encoder, texts: Sequence[str], images: Sequence[bytes | None], size: int = 4) -> batching.Encoded:
    """Encode the modalities that the encoder reads, as the stage does."""
    reads = encoder.reads  # type: ignore[attr-defined]
    shown = images if "image" in reads else [None] * len(images)
    return batching.encode_items(encoder, texts if "text" in reads else [""] * len(texts), shown, size, workers=2)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_equals_single_items_and_what_lacks_all_is_zero(folder: Folder, name: str) -> None:
    encoder, reads = loaded(folder, name), NETWORKS[name][1]
    assert encoder.width == NETWORKS[name][2]
    encoded = run(encoder, TEXTS, PICTURES)
    alone = np.concatenate([run(encoder, [t], [p]).vectors for t, p in zip(TEXTS, PICTURES, strict=True)])
    np.testing.assert_allclose(encoded.vectors, alone, atol=2e-6)
    text = np.array([bool(t) and "text" in reads for t in TEXTS])
    image = np.array([p is not None and "image" in reads for p in PICTURES])
    assert (encoded.has_text == text).all()
    assert (encoded.has_image == image).all()
    assert ((np.abs(encoded.vectors).max(axis=1) > 0) == text | image).all()
    assert (run(encoder, TEXTS, PICTURES).vectors == encoded.vectors).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_auto_is_bfloat16_where_the_processor_is_fast_at_it(
    folder: Folder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "multimodal" and "ATEN_CPU_CAPABILITY" in os.environ:
        pytest.skip("torch's attention packs for oneDNN's AMX, and raises where ATen is limited to AVX2")

    encoders = {"mine": {"kind": NETWORKS[name][0], "model": str(folder(name)), "precision": "auto"}}
    vectors = {}
    for precision in ("float32", "bfloat16"):
        monkeypatch.setattr(device, "is_bf16_fast", lambda _, fast=precision == "bfloat16": fast)
        network = find_network(encoders, "mine", Path("nowhere"))
        assert network.model_facts()["precision"] == precision
        vectors[precision] = run(network.load(), TEXTS, PICTURES).vectors
        wanted = run(loaded(folder, name, precision=precision), TEXTS, PICTURES).vectors
        assert (vectors[precision] == wanted).all()

    exact, rough = (torch.from_numpy(made) for made in vectors.values())
    there = exact.abs().amax(1) > 0
    assert float(torch.cosine_similarity(exact, rough)[there].min()) > 0.99
    assert (exact != rough).any()


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_auto_is_float32_with_another_backend(folder: Folder, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(device, "is_bf16_fast", lambda _: True)
    given = {"kind": "sentence-transformers", "model": str(folder("sentences")), "precision": "auto"}
    network = find_network({"mine": given | {"options": {"backend": backend}}}, "mine", Path("nowhere"))
    assert network.model_facts()["precision"] == "float32"


ODD = {
    "10,000 words": "tree " * 10_000,
    "one word": "a" * 100_000,
    "NUL": "red\0apple",
    "half a character": "red \ud83d apple",
    "right to left": "תפוח אדום \u202e apple",
    "emoji": "👩‍👩‍👧‍👦🏽\ufe0f" * 50,
    "private and beyond": "\ue000\U0010ffff\ufffe",
    "a place for an image": "red <|image_pad|><|vision_start|> apple",
    "an address": "https://127.0.0.1:9/apple.jpg",
    "data": "data:image/png;base64,xx",
}


@pytest.mark.parametrize("name", READERS)
def test_any_text_makes_a_vector(folder: Folder, name: str) -> None:
    encoded = run(loaded(folder, name), [*ODD.values(), "\u3000\t "], [None] * (len(ODD) + 1))
    assert np.isfinite(encoded.vectors).all()
    assert (np.abs(encoded.vectors).max(axis=1) > 0).tolist() == [True] * len(ODD) + [False]


@pytest.mark.parametrize("name", READERS)
def test_a_text_that_names_a_file_is_a_text(folder: Folder, name: str, tmp_path: Path) -> None:
    """sentence-transformers would open bare texts that are paths or addresses of images."""
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    encoder = loaded(folder, name)
    before = run(encoder, [str(path)], [None]).vectors
    path.unlink()
    assert (run(encoder, [str(path)], [None]).vectors == before).all()


@pytest.mark.parametrize("name", VIEWERS)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_any_image_makes_a_vector(folder: Folder, name: str) -> None:
    sizes = [(1, 1), (3, 3), (1, 900), (3, 40), (10_000, 2), (2500, 2500)]
    encoded = run(loaded(folder, name), [""] * len(sizes), [pictures.plain("red", size) for size in sizes])
    assert np.isfinite(encoded.vectors).all()
    assert (np.abs(encoded.vectors).max(axis=1) > 0).all()


def test_a_thin_image_keeps_its_middle_and_bounded_memory() -> None:
    stripes = Image.new("RGB", (4000, 10), "red")
    stripes.paste("blue", (1900, 0, 2100, 10))
    (image,) = towers.open_images([pictures.saved(stripes, "PNG")])
    assert image.size == (160, 10)
    assert {image.getpixel((x, 5)) for x in (0, 80, 159)} == {(0, 0, 255)}
    assert decode_rgb(pictures.plain("red", (9000, 9000)), towers.MAX_INPUT_SIDE_PIXELS).size == (2250, 2250)


# --- two towers


@pytest.mark.parametrize("name", ["siglip", "clip", "open_clip", "multimodal"])
def test_mean_and_concat_join_the_vectors_of_length_one(folder: Folder, name: str) -> None:
    mean, concat = loaded(folder, name, join="mean"), loaded(folder, name, join="concat")
    width = NETWORKS[name][2]
    assert (mean.width, concat.width) == (width, 2 * width)
    texts, images = [TEXTS[0], "", TEXTS[2]], [PICTURES[0], PICTURES[1], None]
    joined, both = run(concat, texts, images).vectors, run(mean, texts, images).vectors
    np.testing.assert_allclose(np.linalg.norm(joined[:, :width], axis=1), [1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(joined[:, width:], axis=1), [1, 0, 1], atol=1e-5)
    np.testing.assert_allclose(both[0], (joined[0, :width] + joined[0, width:]) / 2, atol=1e-6)
    np.testing.assert_allclose(both[1:], (joined[:, :width] + joined[:, width:])[1:], atol=1e-6)


@pytest.mark.parametrize("name", ["siglip", "clip", "open_clip", "multimodal"])
def test_one_modality_of_two_can_be_shown(folder: Folder, name: str) -> None:
    texts = run(loaded(folder, name, modalities=["text"]), TEXTS, PICTURES)
    assert not texts.has_image.any()
    assert texts.has_text.any()
    images = run(loaded(folder, name, modalities=["image"]), TEXTS, PICTURES)
    assert not images.has_text.any()
    np.testing.assert_allclose(images.vectors[0], images.vectors[7], atol=1e-6)  # one image, two texts


# --- one tower


@pytest.mark.parametrize("name", ["bert", "qwen", "sentences", "multimodal"])
def test_prompt_length_and_dimension_are_obeyed(folder: Folder, name: str) -> None:
    usual, nothing = run(loaded(folder, name), TEXTS, [None] * 8).vectors, [None] * 8
    prompted = run(loaded(folder, name, prompt="tell: "), TEXTS, nothing).vectors
    assert np.abs(prompted - usual)[0].max() > 1e-3
    narrow = loaded(folder, name, dim=8)
    assert narrow.width == 8
    np.testing.assert_allclose(run(narrow, TEXTS, nothing).vectors, usual[:, :8], atol=1e-6)
    short, alike = loaded(folder, name, max_tokens=6, chunks=1), ["green tree " * 9 + last for last in ("house", "car")]
    np.testing.assert_allclose(*run(short, alike, nothing[:2]).vectors, atol=1e-6)
    if name != "multimodal":  # a chat, which is cut
        assert np.abs(np.subtract(*run(loaded(folder, name, max_tokens=6), alike, nothing[:2]).vectors)).max() > 1e-4
    assert np.abs(np.subtract(*run(short, ["green", "grey"], nothing[:2]).vectors)).max() > 1e-4


def test_weights_that_lack_a_part_are_refused(folder: Folder, tmp_path: Path) -> None:
    """transformers would only warn, and randomise the missing weights."""
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(folder("bert"), tmp_path / "bert"))
    weights = load_file(copy / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 parameters .* encoder\.layer\.1\.output"):
        loaded(lambda name: copy, "bert")


# --- sentence-transformers


def test_fused_is_refused_where_no_pass_reads_both(folder: Folder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(folder("clip")), device="cpu").save(str(tmp_path / "clip"))
    with pytest.raises(UserError, match="take join mean or concat"):
        loaded(lambda name: tmp_path / "clip", "multimodal", join="fused")
    two = loaded(lambda name: tmp_path / "clip", "multimodal", join="concat")
    ours = loaded(folder, "clip", join="concat")
    np.testing.assert_allclose(
        run(two, TEXTS[:3], PICTURES[:3]).vectors, run(ours, TEXTS[:3], PICTURES[:3]).vectors, atol=1e-5
    )


@pytest.mark.parametrize(("named", "reads"), [(None, BOTH), ({"text": {}}, ("text",))])
def test_modalities_are_those_of_the_model_or_both_where_an_older_one_sees(
    folder: Folder, tmp_path: Path, named: dict[str, dict[str, str]] | None, reads: tuple[str, ...]
) -> None:
    shutil.copytree(folder("multimodal"), tmp_path / "model")
    file = tmp_path / "model/sentence_bert_config.json"
    config = json.loads(file.read_text())
    config.pop("modality_config")
    file.write_text(json.dumps(config | ({} if named is None else {"modality_config": named})))
    encoders = {"mine": {"kind": "sentence-transformers", "model": str(tmp_path / "model")}}
    assert find_network(encoders, "mine", Path("nowhere")).reads == reads


def test_without_the_extra_its_name_is_said(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=re.escape(installing("encoders"))):
        loaded(folder, "sentences", prompt="of no other test")
