"""Distillation from other encoders into CLS."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shop.pretraining import MASK, features, network, shop, task

from alignrec.pipeline import io
from alignrec.pipeline.beit3 import losses
from alignrec.pipeline.beit3.losses import PretrainingModel
from alignrec.pipeline.beit3.losses import encode_items as cls_of
from alignrec.pipeline.beit3.prepare import read_target
from alignrec.pipeline.beit3.pretrain import fit_map
from alignrec.pipeline.beit3.training import fit
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import fit_whitening as whitened
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.runtime.checkpoint import Checkpoint
from alignrec.pipeline.runtime.layout import Layout


def relaxed(x: np.ndarray) -> np.ndarray:
    """Centre vectors and divide each direction by the root of its sd; zero rows stay zero."""
    there = x.any(axis=1)
    u, s, _ = np.linalg.svd(x[there].astype(np.float64) - x[there].mean(axis=0), full_matrices=False)
    out = np.zeros((len(x), len(s)))
    out[there] = u * np.sqrt(s)
    return out


def test_the_target_is_the_joint_vector_of_the_teachers_and_absent_items_stay_zero(tmp_path: Path) -> None:
    shop(tmp_path, n=62, distill_from=["tfidf", "cnn"])
    made = features(tmp_path, "tfidf", "cnn")
    layout = Layout(tmp_path, "toy")
    found = np.asarray(read_target(layout, io.Texts(layout.items), ["tfidf", "cnn"], True, print))
    parts = [
        weight * unit_rows(relaxed(made[name]))[0]
        for name, weight in (("tfidf", 1.0), ("cnn", projections.IMAGE_WEIGHT))
    ]
    joined = np.hstack(parts)
    there = joined.any(axis=1)
    joined[there] -= joined[there].mean(axis=0)
    expected = unit_rows(joined)[0]
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=5e-3)
    assert not found[np.arange(62) % 60 == 0].any(), "neither text nor image"


def _taught(n: int, **params: Any) -> Any:
    """Return a task whose teacher encodes each item's colour."""
    target = np.eye(4, dtype=np.float32)[np.arange(n) % 4]
    plain = task(n, steps=60, **params)
    return replace(plain, target=target)


def test_the_loss_is_one_less_the_cosine_averaged_over_the_items_that_have_a_target() -> None:
    read = torch.tensor([[1.0, 0.0], [1.0, 1.0], [3.0, 4.0]])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert float(losses.teacher_loss(read, target)) == pytest.approx(1 - 2**-0.5)


def test_cls_comes_to_hold_what_the_teacher_knows(tmp_path: Path) -> None:
    toy = _taught(48, distill=4.0)
    net = network()
    history, teacher = fit(net, toy, Checkpoint(tmp_path / "c.safetensors", 1000), int)
    assert history[-1]["distill_loss"] < 0.6 * history[0]["distill_loss"]
    x = fit_map(net, toy, teacher).apply(cls_of(net, toy, np.arange(48)))
    assert x.shape == (48, 4)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine, same = unit @ unit.T, (np.arange(48) % 4)[:, None] == np.arange(48) % 4
    np.fill_diagonal(same, False)
    assert cosine[same].mean() > cosine[~same].mean() + 0.3


def test_items_are_as_like_as_what_the_map_to_the_teachers_reads_of_them() -> None:
    toy, net = _taught(48, distill=1.0), network()
    torch.manual_seed(1)
    model = PretrainingModel(net, MASK, 4)
    cls = cls_of(net, toy, toy.train)
    model.whitening(torch.from_numpy(cls))
    model.whitening.update()
    seen = model.whitening.read(torch.from_numpy(cls))
    expected = model.teacher(seen).detach().numpy()
    expected -= expected.mean(axis=0)
    read = fit_map(net, toy, model.taught().numpy()).apply(cls)
    assert read.shape[1] <= 4
    np.testing.assert_allclose(read @ read.T, expected @ expected.T, atol=1e-3 * np.abs(expected @ expected.T).max())


def test_the_first_steps_weigh_alike_in_the_running_mean_and_covariance() -> None:
    running = losses.RunningWhitening(3)
    cls = torch.randn(5, 40, 3, generator=torch.Generator().manual_seed(0)).cumsum(0)  # [steps, items, width]
    for of_step in cls:
        running(of_step)
        running.update()
    seen = cls.flatten(0, 1)
    torch.testing.assert_close(running.mean, seen.mean(0))
    torch.testing.assert_close(running.covariance, torch.cov(seen.T.double(), correction=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("untaught", [False, True])
def test_cls_is_whitened_where_no_encoder_teaches_or_nothing_was_trained(tmp_path: Path, untaught: bool) -> None:
    toy, net = task(48) if untaught else _taught(48, distill=1.0), network()
    toy = replace(toy, params=toy.params.model_copy(update={"steps": 6 * untaught}))
    teacher = fit(net, toy, Checkpoint(tmp_path / "c", 1000), int)[1]
    assert teacher is None
    cls = cls_of(net, toy, toy.train)
    np.testing.assert_array_equal(fit_map(net, toy, teacher).apply(cls), whitened(cls).apply(cls))
