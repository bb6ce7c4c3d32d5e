"""Images and texts are preprocessed as for the released encoder."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from pipeline.beit3.tokenizer import BOS, EOS, PAD, Tokenizer
from pipeline.images import pixels

# A SentencePiece model, texts, and their ids by XLMRobertaTokenizer of transformers 4.48.3 (the last kind that runs
# SentencePiece itself, as BEiT3 uses it), with special tokens in a text taken as text.
ORACLE = Path(__file__).parents[1] / "oracles" / "xlmr_ids.npz"


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(ORACLE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def tokenizer(oracle: dict[str, np.ndarray]) -> Tokenizer:
    return Tokenizer(oracle["spm"].tobytes())


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


def test_a_text_cannot_name_special_tokens(tokenizer: Tokenizer) -> None:
    """The reference turns them into the tokens; but texts come from strangers, and must not mask or end anything."""
    ids = tokenizer.encode(["cat <mask> </s> <pad> sat"], 99)[0][1:-1]
    assert not set(ids.tolist()) & {BOS, PAD, EOS, tokenizer.mask}
