"""Each type of network gives the vectors of its authors' own call."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pictures
import pytest
import torch
from PIL import Image

from alignrec.pipeline.encoders.registry import Encoder, find_network
from alignrec.pipeline.features import batching
from alignrec.pipeline.images.decode import decode_rgb
from alignrec.pipeline.io.errors import UserError

TEXTS = ["red apple", "a blue car", "bus", "green tree"]
SIZES = [(40, 30), (64, 64), (30, 70), (300, 200)]
RNG = np.random.default_rng(0)
PICTURES = [pictures.saved(Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8))) for size in SIZES]
LEAST = 1 - 1e-5  # cosine to the authors' vectors
OTHER = 1 - 1e-4  # below which vectors are others
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Build each network once."""
    base = tmp_path_factory.mktemp("networks")
    return cache(lambda name: Path(getattr(networks, name)(base / name)))


def load(folder: Path, kind: str, **given: object) -> Encoder:
    encoders = {"mine": {"kind": kind, "model": str(folder), **given}}
    return find_network(encoders, "mine", Path("nowhere")).load()


def embed(encoder: Encoder, texts: list[str] | None, images: list[bytes] | None) -> np.ndarray:
    written = texts or [""] * len(images or [])
    shown = images or [None] * len(texts or [])
    return batching.encode_items(encoder, written, shown, 4).vectors


def least_cosine(ours: np.ndarray, theirs: Any) -> float:
    a, b = torch.from_numpy(ours), torch.as_tensor(theirs, dtype=torch.float32)
    assert a.shape == b.shape
    return float(torch.cosine_similarity(a, b).min())


def opened() -> list[Image.Image]:
    return [decode_rgb(picture, 512) for picture in PICTURES]


# --- sentence-transformers


def library(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["sentences", "cls_pooled", "last_pooled", "static", "multimodal"])
def test_without_a_prompt_vectors_are_those_of_encode(folder: Folder, name: str) -> None:
    """Mean, first and last token, with a dense layer or normalised, and static."""
    theirs = library(folder(name)).encode(TEXTS, prompt="")
    ours = load(folder(name), "sentence-transformers", prompt="")
    assert least_cosine(embed(ours, TEXTS, None), theirs) > LEAST


@pytest.mark.parametrize("name", ["sentences", "last_pooled", "static", "routed", "multimodal"])
def test_by_default_vectors_are_those_of_encode_document(folder: Folder, name: str) -> None:
    model = library(folder(name))
    vectors = embed(load(folder(name), "sentence-transformers"), TEXTS, None)
    assert least_cosine(vectors, model.encode_document(TEXTS)) > LEAST
    if name not in ("sentences", "multimodal"):  # which make no difference
        assert least_cosine(vectors, model.encode_query(TEXTS)) < OTHER


def test_a_stored_prompt_of_passages_precedes_the_default_one(folder: Folder) -> None:
    """encode_document would take an empty prompt, which the library adds for documents."""
    model = library(folder("cls_pooled"))
    assert (model.prompts["passage"], model.prompts["document"]) == ("item ", "")
    vectors = embed(load(folder("cls_pooled"), "sentence-transformers"), TEXTS, None)
    assert least_cosine(vectors, model.encode(TEXTS, prompt_name="passage")) > LEAST
    assert np.abs(vectors - model.encode(TEXTS)).max() > 1e-4


def test_model2vec_is_read_like_its_embeddings_say(folder: Folder) -> None:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    made = folder("model2vec")
    stored = load_file(made / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    theirs = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        rows = stored["embeddings"][stored["mapping"][ids]] * stored["weights"][ids][:, None]
        theirs.append(torch.nn.functional.normalize(rows.mean(dim=0), dim=0))
    encoder = load(made, "sentence-transformers")
    assert least_cosine(embed(encoder, TEXTS, None), torch.stack(theirs)) > LEAST
    with pytest.raises(UserError, match="options are of networks"):
        load(made, "sentence-transformers", options={"model": {"attn_implementation": "eager"}})


@pytest.mark.parametrize("name", ["static", "model2vec"])
def test_a_static_encoder_reads_a_text_of_any_length_whole(folder: Folder, name: str) -> None:
    encoder = load(folder(name), "sentence-transformers", prompt="")
    words = "red car " * 1000
    encoded = batching.encode_items(encoder, [f"{words}blue", words, "日本語"], [None] * 3, 4)
    assert encoded.reading is not None
    assert encoded.reading.read.tolist() == [6004, 6000, 3]
    assert encoded.reading.there.tolist() == [6004, 6000, 3]
    assert encoded.reading.unknown.tolist() == [0, 0, 3]
    assert (encoded.vectors[0] != encoded.vectors[1]).any()


def test_a_chat_model_gives_the_librarys_vectors_of_image_and_text(folder: Folder) -> None:
    items = [{"image": image, "text": text} for image, text in zip(opened(), TEXTS, strict=True)]
    theirs = library(folder("multimodal")).encode_document(items)
    ours = load(folder("multimodal"), "sentence-transformers")
    assert least_cosine(embed(ours, TEXTS, PICTURES), theirs) > LEAST


def test_the_image_budget_is_the_librarys(folder: Folder) -> None:
    budget = {"min_pixels": 32 * 32, "max_pixels": 32 * 32}
    images = [{"image": image} for image in opened()]
    theirs = library(folder("multimodal")).encode(images, processing_kwargs={"image": budget})
    ours = load(folder("multimodal"), "sentence-transformers", options={"processing": budget})
    assert least_cosine(embed(ours, None, PICTURES), theirs) > LEAST
    usual = embed(load(folder("multimodal"), "sentence-transformers"), None, PICTURES)
    assert least_cosine(usual, theirs) < OTHER


# --- transformers


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2"])
def test_two_towers_are_transformers_own(folder: Folder, name: str) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    made = folder(name)
    network, tokenizer = AutoModel.from_pretrained(made), AutoTokenizer.from_pretrained(made)
    process = AutoImageProcessor.from_pretrained(made)
    pad: dict[str, Any] = {"padding": True}
    if name != "clip":
        pad = {"padding": "max_length", "max_length": 16, "truncation": True}
    with torch.inference_mode():
        words = network.get_text_features(**tokenizer(TEXTS, return_tensors="pt", **pad))
        shown = network.get_image_features(**process(opened(), return_tensors="pt"))
    texts = load(made, "huggingface", modalities=["text"])
    assert least_cosine(embed(texts, TEXTS, None), words.pooler_output) > LEAST
    images = load(made, "huggingface", modalities=["image"])
    assert least_cosine(embed(images, None, PICTURES), shown.pooler_output) > LEAST


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_image_networks_are_transformers_own(folder: Folder, name: str) -> None:
    from transformers import AutoImageProcessor, AutoModel

    network = AutoModel.from_pretrained(folder(name))
    inputs = AutoImageProcessor.from_pretrained(folder(name))(opened(), return_tensors="pt")
    with torch.inference_mode():
        theirs = network(**inputs).pooler_output
    ours = load(folder(name), "huggingface")
    assert least_cosine(embed(ours, None, PICTURES), theirs) > LEAST


@pytest.mark.parametrize("name", ["bert", "qwen"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_text_network_pools_as_sentence_transformers_does(
    folder: Folder, tmp_path: Path, name: str, pooling: str
) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    mode = {"last": "lasttoken"}.get(pooling, pooling)
    parts = [Transformer(str(folder(name))), Pooling(networks.WIDTH, mode)]
    theirs = library(networks.modules(tmp_path, parts)).encode(TEXTS)
    ours = load(folder(name), "huggingface", pooling=pooling)
    assert least_cosine(embed(ours, TEXTS, None), theirs) > LEAST
    usual = embed(load(folder(name), "huggingface"), TEXTS, None)
    assert (least_cosine(usual, theirs) > LEAST) == (pooling == {"bert": "mean", "qwen": "last"}[name])


# --- open_clip and timm


def test_open_clip_is_its_own(folder: Folder) -> None:
    import open_clip

    name = f"local-dir:{folder('open_clip')}"
    network, _, look = open_clip.create_model_and_transforms(name)
    network.eval()
    with torch.inference_mode():
        words = network.encode_text(open_clip.get_tokenizer(name)(TEXTS))
        shown = network.encode_image(torch.stack([look(image) for image in opened()]))
    texts = load(folder("open_clip"), "open_clip", modalities=["text"])
    assert least_cosine(embed(texts, TEXTS, None), words) > LEAST
    images = load(folder("open_clip"), "open_clip", modalities=["image"])
    assert least_cosine(embed(images, None, PICTURES), shown) > LEAST


@pytest.mark.parametrize("options", [{}, {"global_pool": "avg", "fc_norm": False}])
def test_timm_is_its_own(folder: Folder, options: dict[str, Any]) -> None:
    import timm

    network = timm.create_model(f"local-dir:{folder('timm')}", pretrained=True, num_classes=0, **options)
    look = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    with torch.inference_mode():
        theirs = network.eval()(torch.stack([look(image) for image in opened()]))
    ours = load(folder("timm"), "timm", options={"model": options})
    assert least_cosine(embed(ours, None, PICTURES), theirs) > LEAST
    usual = embed(load(folder("timm"), "timm"), None, PICTURES)
    assert (least_cosine(usual, theirs) > LEAST) == (not options)


# --- options that cannot be


@pytest.mark.parametrize(
    ("name", "kind", "options", "fault"),
    [
        ("bert", "huggingface", {"model": {"colour": 1}}, "TypeError: .*unexpected keyword argument 'colour'"),
        ("dinov2", "huggingface", {"processing": {"colour": 1}}, "TypeError: .*keyword argument 'colour'"),
        ("bert", "huggingface", {"model": {"attn_implementation": "x"}}, "ValueError: Specified"),
        ("sentences", "sentence-transformers", {"model": {"colour": 1}}, "TypeError: .*argument 'colour'"),
        ("multimodal", "sentence-transformers", {"processing": {"colour": 1}}, "TypeError: .*argument 'colour'"),
        ("open_clip", "open_clip", {"model": {"colour": 1}}, "TypeError: .*argument 'colour'"),
        ("timm", "timm", {"model": {"colour": 1}}, "TypeError: .*argument 'colour'"),
        ("timm", "timm", {"processing": {"colour": 1}}, "TypeError: .*argument 'colour'"),
        ("timm", "timm", {"model": {"global_pool": "avg"}}, r"2 parameters .* fc_norm\.bias; .* fc_norm: false"),
    ],
)
def test_an_unknown_option_is_the_librarys_error(
    folder: Folder, name: str, kind: str, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(UserError, match=fault) as e:
        load(folder(name), kind, options=options)
    assert "\n" not in str(e.value)


@pytest.mark.skipif(find_spec("optimum") is not None, reason="optimum is installed")
def test_a_backend_that_is_not_installed_is_said(folder: Folder) -> None:
    with pytest.raises(UserError, match="ONNX backend requires installing Optimum"):
        load(folder("sentences"), "sentence-transformers", options={"backend": "onnx"})
    half = {"options": {"backend": "onnx"}, "precision": "bfloat16"}
    with pytest.raises(UserError, match="backend onnx has its own precision"):
        load(folder("sentences"), "sentence-transformers", **half)
    with pytest.raises(UserError, match="ONNX backend requires installing Optimum"):
        load(folder("sentences"), "sentence-transformers", **half | {"precision": "auto"})
