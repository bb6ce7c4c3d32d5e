"""`alignrec compare --of` names the recipe of vectors that the authors' libraries made, and no other."""

import io as bytes_io
from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from commands import alignrec
from PIL import Image
from shop import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import identify
from alignrec.pipeline.release.identify import JudgedRecipe
from alignrec.pipeline.runtime.layout import Layout

PROMPTS = {"document": "title ", "query": "find "}
HAS_CONTENT = np.array([bool(title) for title in toy.TITLES])


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return toy.outputs(tmp_path_factory.mktemp("recipes") / "outputs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def bert(folder: Path) -> Path:
    return networks.bert(folder / "bert")


@pytest.fixture(scope="module")
def sentences(folder: Path) -> Path:
    return networks.sentences(folder / "sentences", **PROMPTS)


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return networks.clip(folder / "clip")


def each_text(encode: Callable[[str], np.ndarray]) -> np.ndarray:
    """Encode each text by itself, as a script of the authors would; zeros without one."""
    vectors = [encode(title) if title else None for title in toy.TITLES]
    width = next(len(vector) for vector in vectors if vector is not None)
    return np.stack([np.zeros(width, np.float32) if vector is None else vector for vector in vectors])


def pool(bert: Path, pooling: str) -> np.ndarray:
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)

    def encode(text: str) -> np.ndarray:
        with torch.inference_mode():
            output = network(**tokenizer(text, return_tensors="pt", truncation=True, max_length=24))
        hidden = output.last_hidden_state[0]
        pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "pooler": output.pooler_output[0]}
        return pooled[pooling].numpy()

    return each_text(encode)


def clip_parts(clip: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return image and text vectors by transformers' own calls."""
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    network, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    process = AutoImageProcessor.from_pretrained(clip)

    def plain(output: torch.Tensor) -> np.ndarray:
        return getattr(output, "pooler_output", output)[0].numpy()

    images = []
    with torch.inference_mode():
        files = io.read_table(io.shard(layout.images, "images", 0), schemas.IMAGES)["image"].to_pylist()
        for file in files:
            if file is None:
                images.append(np.zeros(24, np.float32))
            else:
                opened = Image.open(bytes_io.BytesIO(file)).convert("RGB")
                images.append(plain(network.get_image_features(**process(images=opened, return_tensors="pt"))))
        cut = {"truncation": True, "max_length": 20, "return_tensors": "pt"}
        texts = each_text(lambda text: plain(network.get_text_features(**tokenizer(text, **cut))))
    return np.stack(images), texts


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


def find(
    vectors: np.ndarray, layout: Layout, model: Path, kind: str = "huggingface", **more: object
) -> list[JudgedRecipe]:
    encoders = {"mine": {"kind": kind, "model": str(model), **more}}
    return identify.find_recipe(vectors.astype(np.float32), None, encoders, "mine", layout)


def found(recipes: list[JudgedRecipe]) -> str:
    """Return the one recipe that agrees."""
    assert [recipe.is_found for recipe in recipes[:2]] in ([True], [True, False]), [r.describe() for r in recipes]
    return recipes[0].describe()


# --- texts


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "pooler"])
def test_each_pooling_is_recognised(pooling: str, bert: Path, layout: Layout) -> None:
    vectors = pool(bert, pooling)
    assert found(find(vectors, layout, bert)) == f"text, pooling {pooling}, no prompt, all 32 columns, not scaled"
    cut = unit(vectors[:, :12])
    assert found(find(cut, layout, bert)) == (
        f"text, pooling {pooling}, no prompt, the first 12 of 32 columns, scaled to length 1"
    )
    assert found(find(5 * cut, layout, bert)).endswith("of other lengths")


@pytest.mark.parametrize("name", ["document", "query", None])
def test_each_stored_prompt_is_recognised(name: str | None, sentences: Path, layout: Layout) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(sentences), device="cpu")
    prompt = PROMPTS[name] if name else ""
    vectors = each_text(lambda text: model.encode(text, prompt=prompt))
    recipe = found(find(vectors, layout, sentences, "sentence-transformers"))
    assert recipe.startswith(f"text, pooling mean, {f'prompt {prompt!r}' if prompt else 'no prompt'}, all 32")
    # a prompt of the parameters is tried with them
    wanted = each_text(lambda text: model.encode(f"ours {text}"))
    assert "prompt 'ours '" in found(find(wanted, layout, sentences, "sentence-transformers", prompt="ours "))


def test_half_precision_agrees_and_noise_does_not(bert: Path, layout: Layout) -> None:
    vectors = pool(bert, "mean")
    assert "pooling mean" in found(find(vectors.astype(np.float16), layout, bert))
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    assert not find(vectors + 0.2 * noise * vectors.std(), layout, bert)[0].is_found


def test_of_a_narrow_cone_a_wrong_recipe_does_not_agree(bert: Path, layout: Layout) -> None:
    """All cosines of shifted vectors are above the threshold."""
    wrong, right = pool(bert, "cls"), pool(bert, "mean")
    recipe = identify.measure_recipe(right[HAS_CONTENT] + 1e3, candidate(wrong[HAS_CONTENT] + 1e3))
    assert recipe.cosines.min() > identify.MIN_COSINE
    assert not recipe.agrees.any()
    assert identify.measure_recipe(right[HAS_CONTENT] + 30, candidate(right[HAS_CONTENT] + 30)).agrees.all()


def candidate(vectors: np.ndarray) -> identify.RecipeCandidate:
    return identify.RecipeCandidate("text", "cls", "", "", "", vectors)


# --- images with texts


@pytest.mark.parametrize("order", ["image + text", "text + image"])
@pytest.mark.parametrize("scaling", [identify.UNIT, identify.RAW])
@pytest.mark.parametrize("columns", [24, 10])
def test_each_concatenation_is_recognised(order: str, scaling: str, columns: int, clip: Path, layout: Layout) -> None:
    image, text = (part[:, :columns] for part in clip_parts(clip, layout))
    if scaling == identify.UNIT:
        image, text = unit(image), unit(text)
    vectors = np.hstack([image, text] if order == "image + text" else [text, image])
    recipe = found(find(vectors, layout, clip, join="concat"))
    assert recipe.startswith(f"{order}, pooling its own, no prompt, each {scaling}, ")
    assert ("all 48 columns" in recipe) == (columns == 24)


def test_means_and_single_modalities_are_recognised(clip: Path, layout: Layout) -> None:
    image, text = clip_parts(clip, layout)
    assert found(find(image, layout, clip)).startswith("image, ")
    assert found(find(text, layout, clip)).startswith("text, ")
    assert found(find(unit(image) + unit(text), layout, clip)).startswith("mean of image and text, ")
    assert "each unscaled" in found(find(image + text, layout, clip))
    assert "not scaled" in found(find((image + text) / 2, layout, clip))


def test_both_in_one_pass_are_recognised(folder: Path, layout: Layout) -> None:
    from sentence_transformers import SentenceTransformer

    model = networks.multimodal(folder / "multimodal")
    library = SentenceTransformer(str(model), device="cpu")
    files = io.read_table(io.shard(layout.images, "images", 0), schemas.IMAGES)["image"].to_pylist()
    vectors = np.zeros((len(files), networks.WIDTH), np.float32)
    for row in np.flatnonzero(HAS_CONTENT):
        opened = Image.open(bytes_io.BytesIO(files[row])).convert("RGB")
        vectors[row] = library.encode({"image": opened, "text": toy.TITLES[row]})
    recipe = found(find(vectors, layout, model, "sentence-transformers"))
    assert recipe.startswith("image and text in one pass, pooling last")


# --- none


def test_random_and_permuted_vectors_are_of_no_recipe(bert: Path, layout: Layout) -> None:
    rng = np.random.default_rng(0)
    others = [rng.normal(size=(toy.ITEMS, 32)), np.ones((toy.ITEMS, 32)), pool(bert, "mean")[[1, 2, 3, 5, 4, 0]]]
    for vectors in others:
        recipes = find(vectors, layout, bert)
        assert len(recipes) > 1
        assert not any(recipe.is_found for recipe in recipes)
    verdict = identify.describe_verdict("theirs.npy", "mine", recipes)
    assert verdict.startswith("theirs.npy: no recipe of mine agrees; the nearest: text, pooling ")


def test_vectors_of_another_width_and_too_few_items_are_explained(bert: Path, layout: Layout) -> None:
    recipes = find(np.ones((toy.ITEMS, 33)), layout, bert)
    assert recipes == []
    assert identify.describe_verdict("t", "mine", recipes) == "t: no recipe of mine makes vectors of that width"
    with pytest.raises(UserError, match="no direction"):
        find(np.ones((toy.ITEMS, 1)), layout, bert)
    few = np.eye(toy.ITEMS, 8) * (np.arange(toy.ITEMS) < 2)[:, None]
    with pytest.raises(UserError, match=r"2 items of shop with a vector have text, at least 3"):
        find(few, layout, bert)


# --- the command


def test_the_command_prints_the_verdict_first(bert: Path, layout: Layout, tmp_path: Path) -> None:
    np.save(tmp_path / "theirs.npy", pool(bert, "cls"))
    encoders = f"encoders: {{b: {{kind: huggingface, model: {bert}}}}}\n"
    (tmp_path / "params.yaml").write_text(f"datasets: [shop]\nsources: {{shop: {{kind: sample}}}}\n{encoders}")
    root = ("--root", layout.root)
    said = [
        alignrec("compare", *files, "--of", of, *root, cwd=tmp_path)
        for files in (["theirs.npy"], ["shop", "theirs.npy"])
        for of in ("b", f"huggingface:{bert}")
    ]
    for done in said:
        assert done.exit_code == 0, done.output
        verdict, rows, *table = done.output.splitlines()
        assert verdict.startswith("theirs.npy: made by ")
        assert "text, pooling cls, no prompt, all 32 columns, not scaled (cosine 1.0000, 5 of 5 items)" in verdict
        assert rows.startswith("rows: theirs.npy, rows assumed to be in order")
        assert "cosine" in table[0]
    for arguments, why in (
        (["shop", "a.npy", "b.npy", "--of", "b"], "one file"),
        (["shop", "theirs.npy", "--of", "linear"], "no encoder 'linear'|not an encoder"),
        (["shop", "theirs.npy", "--of", "tfidf"], "run `alignrec encode shop`"),
        (["shop", "theirs.npy", "--of", "b", "--to", "x"], "writes no files"),
        (["shop"], "name a feature set or a file"),
    ):
        done = alignrec("compare", *arguments, *root, cwd=tmp_path)
        assert done.exit_code != 0
        assert any(part in " ".join(done.output.split()) for part in why.split("|")), done.output
