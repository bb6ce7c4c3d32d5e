"""VQ-KD trained here: the codebook, the training, and that a killed one ends as an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lessons import ColourTeacher, png, store, striped
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from pipeline.beit3.network import SIZES
from pipeline.beit3.vqkd import VQKD
from pipeline.ops.checkpoint import Checkpoint
from pipeline.pretrain import published, vqkd
from pipeline.pretrain.params import Pretrain
from pipeline.pretrain.teacher import FeatureMaps, feature_maps

PARAMS = Pretrain(visual_tokens="teacher-vqkd", codes=12, vqkd_width=64, vqkd_layers=1, vqkd_epochs=4, threads=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, FeatureMaps]:
    """Return 80 images, two batches, and the teacher's features."""
    pixels, _ = striped(80)
    layout = store(tmp_path_factory.mktemp("lesson"), list(map(png, pixels)), 100)
    layout.encoder_scratch.mkdir(parents=True)
    return pixels, feature_maps(ColourTeacher, layout.images, 6, layout.encoder_scratch, tqdm)


def train(
    lesson: tuple[np.ndarray, FeatureMaps], folder: Path, params: Pretrain = PARAMS, every: int = 100
) -> tuple[VQKD, dict[str, float]]:
    return vqkd.train(*lesson, 8, params, Checkpoint(folder / "checkpoint", every), 5, CPU, int)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# --- the codebook


def test_a_code_follows_the_mean_of_its_vectors() -> None:
    codes, vectors = unit(3, 4), unit(5, 4, seed=1)
    embedding = nn.Embedding.from_pretrained(codes.clone())
    vqkd.Codebook(embedding, 1.0).follow(vectors, torch.tensor([0, 2, 0, 2, 0]), 0)
    for code, own in ((0, [0, 2, 4]), (2, [1, 3])):
        mean = F.normalize(vectors[own].mean(0), dim=0)
        assert torch.allclose(embedding.weight[code], F.normalize(0.99 * codes[code] + 0.01 * mean, dim=0), atol=1e-6)
    assert torch.equal(embedding.weight[1], codes[1])  # nothing fell to it, and it is not yet dead


def test_a_codebook_that_collapses_is_revived() -> None:
    embedding = nn.Embedding.from_pretrained(torch.cat([torch.ones(1, 4) / 2, -torch.ones(7, 4) / 2]))
    codebook = vqkd.Codebook(embedding, 64 / 8)
    revived = 0
    for step in range(400):
        vectors = unit(64, 4, seed=step).abs()  # all fall to the first code
        revived += codebook.follow(vectors, (vectors @ embedding.weight.T).argmax(1), step)
    used = (unit(1000, 4, seed=9).abs() @ embedding.weight.T).argmax(1).bincount(minlength=8)
    assert revived >= 7
    assert (used > 0).all(), used


def test_a_batch_of_fewer_patches_than_dead_codes_revives_some() -> None:
    embedding = nn.Embedding.from_pretrained(unit(9, 4))
    codebook = vqkd.Codebook(embedding, 1.0)
    codebook.use.zero_()
    vectors = unit(2, 4, seed=1)
    assert codebook.follow(vectors, torch.tensor([0, 0]), 0) == 2
    assert {tuple(v) for v in vectors.tolist()} <= {tuple(c) for c in embedding.weight.tolist()}


# --- the training


def test_it_learns_to_rebuild_the_teachers_features(lesson: tuple[np.ndarray, FeatureMaps], tmp_path: Path) -> None:
    _, first = train(lesson, tmp_path, PARAMS.model_copy(update={"vqkd_epochs": 1}))
    _, last = train(lesson, tmp_path, PARAMS.model_copy(update={"vqkd_epochs": 60}))
    assert last["cosine"] > 0.8 > 0.5 > first["cosine"]


def test_codes_tell_the_decoder_what_the_encoder_saw(lesson: tuple[np.ndarray, FeatureMaps]) -> None:
    """The gradient passes through the codes: without, no weight of the encoder would follow the teacher."""
    pixels, maps = lesson
    images = np.arange(16)
    torch.manual_seed(0)
    training = vqkd.Training(vqkd._shape(6, 8, 99, PARAMS), maps.shape[2], PARAMS, 1.0, CPU)
    image = vqkd._image(pixels, images, training.tokenizer.config, CPU)
    training.codebook.codes.copy_(F.normalize(training.tokenizer(image), dim=-1)[:12, 0].detach())
    gradients = []
    for target in (maps.rows(images), maps.rows(images[::-1])):
        training.step(image, torch.from_numpy(target.copy()), 0.0, 0)  # rate 0: all but the codes stays
        weight = training.tokenizer.encoder.patch_embed.proj.weight
        assert weight.grad is not None
        gradients.append(weight.grad.clone())
    assert not torch.allclose(*gradients, rtol=0.01)


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_interrupted_at_any_step_it_ends_the_same(
    lesson: tuple[np.ndarray, FeatureMaps], tmp_path: Path, stop: int
) -> None:
    whole, facts = train(lesson, tmp_path / "whole")
    checkpoint, steps = Checkpoint(tmp_path / "stopped", 1), 0

    def interrupt(n: int) -> None:
        nonlocal steps
        steps += 1
        if steps == stop + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vqkd.train(*lesson, 8, PARAMS, checkpoint, 5, CPU, interrupt)
    shown: list[int] = []
    resumed, again = vqkd.train(*lesson, 8, PARAMS, checkpoint, 5, CPU, shown.append)
    assert again == facts
    assert sum(shown) == 80 * 4
    assert 1 < len(shown) <= 9 - stop
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_there_are_no_more_codes_than_patches(lesson: tuple[np.ndarray, FeatureMaps], tmp_path: Path) -> None:
    pixels, maps = lesson
    few = FeatureMaps([maps.parts[0][:2]])
    tokenizer, _ = train((pixels[:2], few), tmp_path, PARAMS.model_copy(update={"codes": 5000}))
    assert tokenizer.codes == 2 * 36
    assert vqkd.tokens(tokenizer, pixels).max() < 72


def test_it_is_written_as_published_ones_are(lesson: tuple[np.ndarray, FeatureMaps], tmp_path: Path) -> None:
    """So the tokenizer of one dataset serves another, by `visual_tokens: vqkd`."""
    tokenizer, _ = train(lesson, tmp_path)
    save_file(tokenizer.state_dict(), tmp_path / "mine.safetensors")
    params = Pretrain(visual_tokens="vqkd", vqkd=str(tmp_path / "mine.safetensors"))

    def fetch(address: str, target: Path) -> None:
        raise AssertionError(address)

    cache = published.Cache(tmp_path / "published", fetch)
    tokens, n = published.visual_tokens(params, cache, lesson[0], SIZES["small"], CPU)
    assert n == 12
    assert (tokens == vqkd.tokens(tokenizer, lesson[0])).all()
