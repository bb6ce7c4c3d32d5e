"""Distillation: what frozen encoders know of the items, and how CLS comes to hold it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from pipeline.features.node import table
from pretraining import MASK, network, run, shop, task

import schemas
from pipeline import io
from pipeline.layout import Layout
from pipeline.ops import joining
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.joining import Block
from pipeline.ops.linalg import unit_rows
from pipeline.ops.whitening import fit as whitened
from pipeline.pretrain import frozen, held_out, losses
from pipeline.pretrain.held_out import features, reading
from pipeline.pretrain.loop import fit
from pipeline.pretrain.losses import PretrainingModel


def _rows(vectors: np.ndarray) -> frozen.Rows:
    ids = pa.table(
        {"item_id": pa.array(range(len(vectors)), pa.int32()), "asin": [f"A{i}" for i in range(len(vectors))]}
    )
    has = vectors.any(axis=1)
    whole = table(ids, vectors, has, has)
    return lambda start, stop: whole.slice(start, stop - start)


def test_the_target_is_what_linear_makes_of_the_vectors_and_absent_items_stay_zero(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    of_text = (rng.standard_normal((500, 6)) * [9, 3, 1, 1, 0.5, 0] + 4).astype(np.float32)
    of_image = rng.standard_normal((500, 4)).astype(np.float32)
    of_text[7] = of_image[7] = 0
    features = [frozen.encoded(_rows(x), 500, tmp_path / f"{i}.npy") for i, x in enumerate((of_text, of_image))]
    np.testing.assert_array_equal(features[0], of_text)
    blocks = [Block(0, np.ones(6, bool), 1.0), Block(1, np.ones(4, bool), 0.3)]
    found = np.asarray(frozen.target(features, blocks, tmp_path / "target.npy"))
    assert found.shape == (500, 9), "the direction without variance is left out"
    assert not found[7].any()
    expected = joining.fit(lambda: [features], blocks, 128, 0.5)(features)
    np.testing.assert_allclose(found, unit_rows(expected)[0], atol=1e-5)


def _taught(n: int, **params: Any) -> Any:
    """Return a task whose teacher knows each item's colour."""
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
    x = reading(net, toy, teacher)(features(net, toy, np.arange(48)))
    assert x.shape == (48, 4)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine, same = unit @ unit.T, (np.arange(48) % 4)[:, None] == np.arange(48) % 4
    np.fill_diagonal(same, False)
    assert cosine[same].mean() > cosine[~same].mean() + 0.3


def test_items_are_as_like_as_what_the_map_to_the_teachers_reads_of_them() -> None:
    toy, net = _taught(48, distill=1.0), network()
    torch.manual_seed(1)
    model = PretrainingModel(net, MASK, 4)
    cls = features(net, toy, toy.train)
    model.whitening(torch.from_numpy(cls))
    model.whitening.update()
    seen = model.whitening.read(torch.from_numpy(cls))
    expected = model.teacher(seen).detach().numpy()
    expected -= expected.mean(axis=0)
    read = reading(net, toy, model.taught().numpy())(cls)
    assert read.shape[1] <= 4
    np.testing.assert_allclose(read @ read.T, expected @ expected.T, atol=1e-3 * np.abs(expected @ expected.T).max())


@pytest.mark.parametrize("untaught", [False, True])
def test_cls_is_whitened_where_no_encoder_teaches_or_nothing_was_trained(tmp_path: Path, untaught: bool) -> None:
    toy, net = task(48) if untaught else _taught(48, distill=1.0), network()
    toy = replace(toy, params=toy.params.model_copy(update={"steps": 6 * untaught}))
    teacher = fit(net, toy, Checkpoint(tmp_path / "c", 1000), int).teacher
    assert teacher is None
    cls = features(net, toy, toy.train)
    np.testing.assert_array_equal(reading(net, toy, teacher)(cls), whitened(cls)(cls))


def test_the_stage_learns_from_an_encoder_and_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    for where in ("one", "two"):
        shop(tmp_path / where, distill=1.0, distill_from=["tfidf"], steps=14)
        _ids(tmp_path / where)
    run(tmp_path / "one")
    history = json.loads(Layout(tmp_path / "one", "toy").history("pretrain").read_text())
    assert history[-1]["distill_loss"] < history[0]["distill_loss"]
    stopped = Layout(tmp_path / "two", "toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.pretrain.loop.measure", _interrupted())
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "two")
    assert stopped.encoder_checkpoint.exists()
    run(tmp_path / "two")
    weights = [Layout(tmp_path / where, "toy").encoder.weights.read_bytes() for where in ("one", "two")]
    assert weights[0] == weights[1]


def test_a_concat_teaches_before_its_parts_are_written(tmp_path: Path) -> None:
    path = shop(tmp_path, distill=1.0, distill_from=["both"], steps=4)
    given = yaml.safe_load(path.read_text())
    given["encoders"] = {"both": {"kind": "concat", "of": ["cnn", "minilm"]}}
    given["encode"] = {"encoders": ["beit3", "cnn", "minilm", "both"]}
    path.write_text(yaml.safe_dump(given))
    _ids(tmp_path)
    assert run(tmp_path)["distill_loss"] > 0


def _interrupted(after: int = 5) -> Any:
    """Return a measurement that is interrupted when it was made `after` times, a step each."""
    calls = iter(range(after))

    def measure(*given: Any) -> dict[str, float | None]:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return held_out.measure(*given)

    return measure


def _ids(root: Path) -> None:
    ids = pa.table({"item_id": pa.array(range(96), pa.int32()), "asin": [f"A{i}" for i in range(96)]})
    io.write_table(ids, Layout(root, "toy").item_ids, schemas.ITEM_IDS)
