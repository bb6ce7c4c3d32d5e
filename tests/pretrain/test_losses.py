"""Each term of the loss against a slow version, and the effect of training on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretraining import MASK, network, task

from alignrec.pipeline.beit3.config import SIZES
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.pretrain import losses, prepare
from alignrec.pipeline.pretrain.corpus import Rates, make_batch
from alignrec.pipeline.pretrain.losses import PretrainingModel, Step
from alignrec.pipeline.pretrain.params import Pretrain


def _step(**params: Any) -> tuple[Step, PretrainingModel]:
    toy = task(12, **params)
    step = make_batch(toy, np.arange(12), Rates(0.5, 0.5, 0.5, 0.0), 3)
    torch.manual_seed(1)
    return step, PretrainingModel(network(), MASK)


def test_losses_at_chance_are_the_logarithm_of_the_number_of_choices() -> None:
    """A uniform prediction costs log C per patch and log V per token."""
    step, model = _step()
    with torch.no_grad():
        for head in (model.network.mim_head, model.network.mlm_head):
            head.weight.zero_()
            head.bias.zero_()
        terms = model(step, step.counts())
    log_c, log_v = float(np.log(8)), float(np.log(12))
    assert terms.tolist() == pytest.approx([log_c, log_v, 0], abs=1e-5)


def test_masked_content_does_not_reach_the_prediction() -> None:
    step, model = _step()
    image, ids = step.inputs.image.clone(), step.inputs.ids.clone()
    at = step.patch_mask.unflatten(1, (2, 2)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    image[at[:, None].expand_as(image)] = 0.7
    ids[step.piece_mask] = 4
    changed = step._replace(inputs=step.inputs._replace(image=image, ids=ids))
    with torch.no_grad():
        pairs = zip(
            losses.predict_masked(model.network, step, MASK),
            losses.predict_masked(model.network, changed, MASK),
            strict=True,
        )
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_terms_of_parts_add_up_to_those_of_the_whole() -> None:
    toy, model = task(12), PretrainingModel(network(), MASK)
    whole = make_batch(toy, np.arange(12), toy.rates, 3)
    parts = [make_batch(toy, part, toy.rates, 3) for part in np.array_split(np.arange(12), 3)]
    with torch.no_grad():
        summed = sum(model(part, whole.counts()) for part in parts)
        torch.testing.assert_close(summed, model(whole, whole.counts()), rtol=0, atol=1e-6)


# --- visual tokens by k-means of pixel patches


SMALL = SIZES["small"]
COLOURS = np.array([(160, 100, 100), (100, 160, 100), (100, 100, 160), (150, 150, 80)], np.uint8)


def codes(layout: Layout, pixels: np.ndarray, n: int = 8) -> np.ndarray:
    tokens, there = prepare.read_codes(layout, pixels, SMALL, Pretrain(size="small", codes=n), 3)
    assert tokens.dtype == np.int32
    assert 0 <= tokens.min() <= tokens.max() < there <= n
    return tokens


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 48, 48, 3), np.uint8)
    one, two = Layout(tmp_path / "one", "toy"), Layout(tmp_path / "two", "toy")
    assert (codes(one, pixels) == codes(two, pixels)).all()
    assert one.visual_tokens.read_bytes() == two.visual_tokens.read_bytes()
    assert (codes(one, pixels) == codes(two, pixels)).all()  # now from the file


def test_there_are_no_more_codes_than_different_patches(tmp_path: Path) -> None:
    tokens = codes(Layout(tmp_path, "toy"), COLOURS[:, None, None].repeat(48, 1).repeat(48, 2), n=500)
    assert [len(np.unique(image)) for image in tokens] == [1] * 4
    assert len(np.unique(tokens)) == 4
