"""Images and texts are preprocessed as for the released encoder."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from transformers import XLMRobertaTokenizer

from pipeline.beit3.tokenizer import BOS, EOS, PAD, Tokenizer, pad
from pipeline.images import pixels

# A SentencePiece model, texts, and their ids by XLMRobertaTokenizer of transformers 4.48.3 (the last kind that runs
# SentencePiece itself, as BEiT3 uses it), with special tokens in a text taken as text.
ORACLE = Path(__file__).parents[1] / "oracles" / "xlmr_ids.npz"
NEXT_LINE = "\x85"  # the one character of 1,112,064 that transformers 5 takes for a space and SentencePiece does not


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(ORACLE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def tokenizer(oracle: dict[str, np.ndarray]) -> Tokenizer:
    return Tokenizer(oracle["spm"].tobytes())


@pytest.fixture(scope="module")
def reference(oracle: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> XLMRobertaTokenizer:
    folder = tmp_path_factory.mktemp("xlmr")
    (folder / "sentencepiece.bpe.model").write_bytes(oracle["spm"].tobytes())
    return XLMRobertaTokenizer.from_pretrained(folder)


# --- images


def png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (500, 300), (300, 500), (224, 224), (20, 900)])
def test_images_equal_the_official_evaluation_transform(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    official = transforms.Compose(
        [
            transforms.Resize((224, 224), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )
    ours = pixels.normalised(pixels.squares([png(values)], 224))
    assert torch.equal(ours[0], official(Image.fromarray(values)))


# --- texts


def test_ids_equal_those_of_the_tokenizer_that_beit3_uses(tokenizer: Tokenizer, oracle: dict[str, np.ndarray]) -> None:
    texts = json.loads(oracle["texts"].tobytes())
    expected = np.split(oracle["ids"], np.cumsum(oracle["lengths"])[:-1])
    actual = tokenizer.encode(texts, 10**6)
    assert len(texts) == len(expected) == 425
    assert [ids.tolist() for ids in actual] == [ids.tolist() for ids in expected]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.characters(exclude_characters=NEXT_LINE, exclude_categories=["Cs"]))
def test_ids_of_any_character_equal_the_installed_reference(
    tokenizer: Tokenizer, reference: XLMRobertaTokenizer, character: str
) -> None:
    text = f"cat{character}sat {character}"
    assert tokenizer.encode([text], 99)[0].tolist() == reference(text)["input_ids"]


def test_cutting_and_padding_equal_the_reference(tokenizer: Tokenizer, reference: XLMRobertaTokenizer) -> None:
    texts = ["", "the cat", "the cat sat on a mat with smiling eyes and a baby bottle", "привет 日本語 résumé"]
    expected = reference(texts, padding="max_length", truncation=True, max_length=12)
    ids, padding = pad(tokenizer.encode(texts, 12), 12)
    assert ids.tolist() == expected["input_ids"]
    assert (~padding).astype(int).tolist() == expected["attention_mask"]
    assert ids[2, -1] == EOS  # a cut text still ends


def test_a_text_cannot_name_special_tokens(tokenizer: Tokenizer) -> None:
    """The reference turns them into the tokens; but texts come from strangers, and must not mask or end anything."""
    ids = tokenizer.encode(["cat <mask> </s> <pad> sat"], 99)[0][1:-1]
    assert not set(ids.tolist()) & {BOS, PAD, EOS, tokenizer.mask}
