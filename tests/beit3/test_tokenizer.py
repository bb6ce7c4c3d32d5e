"""Images and texts are prepared as the released encoder expects."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import saved
from PIL import Image

from alignrec.pipeline.beit3 import published
from alignrec.pipeline.beit3.tokenizer import BOS, EOS, PAD, Tokenizer, split_text, train_model
from alignrec.pipeline.beit3.vqkd import VQKD, VQKDConfig
from alignrec.pipeline.images.decode import decode_squares, normalise_pixels
from benchmarks import _official

ORACLES = Path(__file__).parents[1] / "oracles"


# A SentencePiece model, texts, and their ids by XLMRobertaTokenizer of transformers 4.48.3 (the last kind that runs
# SentencePiece itself, as BEiT3 uses it), with special tokens in a text taken as text.
@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(ORACLES / "xlmr_ids.npz", allow_pickle=False) as file:
        return dict(file)


WORDS = ["red apple fruit", "green apple fruit", "blue car vehicle", "red car vehicle", "a bus"] * 8


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    model = train_model(WORDS, 40)
    assert model is not None
    return Tokenizer(model)


@pytest.mark.parametrize("text", ["", " \t\n", "é", "\0", "日本語 🙂 \ud7ff", "a" * 10_000, "word " * 10_000])
def test_any_text_gives_ids_within_the_limit(tokenizer: Tokenizer, text: str) -> None:
    (ids,) = split_text(tokenizer.encode([text])[0], 16, 1)
    assert 2 <= len(ids) <= 16
    assert (ids[0], ids[-1]) == (BOS, EOS)


def test_ids_equal_those_of_the_tokenizer_that_beit3_uses(oracle: dict[str, np.ndarray]) -> None:
    tokenizer = Tokenizer(oracle["spm"].tobytes())
    texts = json.loads(oracle["texts"].tobytes())
    expected = np.split(oracle["ids"], np.cumsum(oracle["lengths"])[:-1])
    actual = [split_text(ids, 10**6, 1)[0] for ids in tokenizer.encode(texts)]
    assert len(texts) == len(expected) == 425
    assert [ids.tolist() for ids in actual] == [ids.tolist() for ids in expected]


def test_a_text_cannot_name_special_tokens(oracle: dict[str, np.ndarray]) -> None:
    """Unlike in the reference, as texts are untrusted and must not mask or end a sequence."""
    tokenizer = Tokenizer(oracle["spm"].tobytes())
    ids = tokenizer.encode(["cat <mask> </s> <pad> sat"])[0]
    assert not set(ids.tolist()) & {BOS, PAD, EOS, tokenizer.mask}


@pytest.mark.parametrize("size", [(1, 1), (500, 300), (300, 500), (224, 224), (20, 900)])
def test_images_equal_the_official_evaluation_transform(size: tuple[int, int]) -> None:
    from torchvision import transforms  # which takes seconds

    values = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    official = transforms.Compose(
        [
            transforms.Resize((224, 224), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )
    ours = normalise_pixels(decode_squares([saved(Image.fromarray(values), "PNG")], 224))
    assert torch.equal(ours[0], official(Image.fromarray(values)))


# --- visual tokens, against figures of the reference implementation


@torch.no_grad()
def test_features_equal_the_reference(tmp_path: Path) -> None:
    """BEiT v2's VQ-KD in float32 on a tiny random case, from a file as published, with decoder and teacher."""
    with np.load(ORACLES / "vqkd_tiny.npz", allow_pickle=False) as file:
        reference = {name: torch.from_numpy(values) for name, values in file.items()}
    extra = ("decoder.cls_token", "decode_task_layer.0.bias", "teacher_model.proj")
    given = {name.removeprefix("param:"): x for name, x in reference.items() if name.startswith("param:")}
    _official.save(given | {name: torch.ones(1) for name in extra}, tmp_path / "vqkd.pth")
    network, _ = published.load_vqkd(tmp_path / "vqkd.pth", 4, heads=4)
    image = reference["image_0_1"] * 2 - 1  # as the encoder's preparation leaves it
    torch.testing.assert_close(network.encoder(image), reference["encoder_patch_features"], rtol=0, atol=1e-5)
    torch.testing.assert_close(network(image), reference["to_quantizer"], rtol=0, atol=1e-5)
    assert torch.equal(network.tokens(image), reference["tokens"])


def test_nearest_is_by_direction_and_ties_go_to_the_first_code() -> None:
    network = VQKD(VQKDConfig(image=2, patch=1, width=4, layers=0, heads=1, codes=4, code_width=2))
    with torch.no_grad():
        network.quantize.embedding.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]]))
    actual = network.quantize.nearest(torch.tensor([[0.01, 0.0], [100.0, 99.0], [-3.0, 1.0], [0.2, 5.0]]))
    assert actual.tolist() == [0, 0, 2, 1]
