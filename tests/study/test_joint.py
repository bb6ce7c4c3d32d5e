"""Joint beside staged on a toy shop: from the same weights, and the recommender's losses move the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studied
import torch
from safetensors.torch import load_file

import schemas
from pipeline import io
from pipeline.experiment.joint import Encoder, Joint, Together
from pipeline.experiment.pairs import Stored
from pipeline.experiment.run import Experiment
from pipeline.experiment.tables import joint
from pipeline.experiment.tables.joint import START, Taught
from pipeline.graph import neighbours
from pipeline.graph.params import Graph
from pipeline.layout import Layout
from pipeline.models.alignrec import AlignRecParams
from pipeline.models.base import Batch, Inputs
from pipeline.report import argument
from pipeline.report import studied as page
from pipeline.train import inputs
from stages.params import load

pytestmark = pytest.mark.usefixtures("one_process")

STUDY: dict[str, Any] = {"joint": {"rates": [1.0, 0.01], "seeds": 2}, "workers": 1}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with its encoder, and the part that has been run."""
    root = tmp_path_factory.mktemp("shop")
    params = studied.encoded(root, study=STUDY)
    studied.part("joint", params, root)
    return root


def started(root: Path) -> tuple[Experiment, Layout]:
    """Return the part's experiment, and the layout of the encoder that joint training starts from."""
    params = load(root / "params.yaml")
    experiment = Experiment(studied.run("study", params, root), 1)
    return experiment, joint.without_pretraining(params, experiment.layout)[1]


def test_every_arm_is_tested_against_staged_and_probed(shop: Path) -> None:
    rows = io.read_table(Layout(shop, "toy").study("joint"), schemas.JOINT).to_pylist()
    variants = [("staged", 0.0), (START, 0.0), ("joint", 1.0), ("joint", 0.01)]
    assert [(row["variant"], row["rate"]) for row in rows] == variants
    assert [row["difference"] is None for row in rows] == [True, False, False, False]
    for row in rows[1:]:
        assert row["difference"] == pytest.approx(row["mean"] - rows[0]["mean"])
    assert all(0 <= row["item_cf"] <= 1 for row in rows)
    curves = io.read_table(Layout(shop, "toy").study("joint_epochs"), schemas.JOINT_EPOCHS).to_pylist()
    assert [(row["variant"], row["seed"], row["epoch"]) for row in curves[:3]] == [
        *(("staged", 0, epoch) for epoch in (0, 1)), (START, 0, 0),
    ]  # fmt: skip
    assert len(curves) == 4 * 2 * 2
    probed = {(row["variant"], row["rate"]): row["item_cf"] for row in curves}
    assert len({row["item_cf"] for row in curves if row["variant"] == "staged"}) == 1
    assert probed["joint", 1.0] != probed[START, 0.0]


def test_the_part_is_a_table_and_two_pictures(shop: Path) -> None:
    layout = Layout(shop, "toy")
    (shown,) = argument.joint(io.read_table(layout.study("joint"), schemas.JOINT))
    names = ["staged", START, "joint, encoder's rate x 1", "joint, encoder's rate x 0.01"]
    assert [row[0] for row in shown.rows] == names
    assert {len(row) for row in shown.rows} == {len(shown.head)}
    epochs = io.read_table(layout.study("joint_epochs"), schemas.JOINT_EPOCHS)
    charts = [(chart.x_name, [line["name"] for line in chart.lines]) for chart in page.joint_curves(epochs)]
    assert charts == [("epoch", names)] * 2
    assert page.joint_curves(epochs.slice(0, 0)) == argument.joint(schemas.JOINT.empty_table()) == []


def test_joint_starts_from_the_weights_that_pre_training_starts_from(shop: Path) -> None:
    experiment, start = started(shop)
    features = io.matrix(io.read_features(start.features("beit3-raw"))["vector"])
    encoder = Encoder(Joint(start, rate=1.0, graph=Graph()))
    np.testing.assert_allclose(encoder.all(), features, atol=1e-4)
    trained = load_file(experiment.layout.encoder.weights)
    same = [torch.equal(x, trained[name]) for name, x in encoder.network.state_dict().items() if "layers.0" in name]
    assert not any(same[:2])  # and pre-training has moved on from there


def test_a_step_moves_the_encoder_by_its_own_rate(shop: Path) -> None:
    _, start = started(shop)
    split, encoder = inputs.read(start, None).split, Encoder(Stored(start))
    vectors = torch.from_numpy(encoder.all())
    edges = neighbours.neighbours(vectors.numpy(), 4)
    settings = AlignRecParams(dim=8, mode="frozen", batch_size=64)
    model = Together(Inputs(split, vectors, edges, torch.device("cpu")), settings, encoder, Graph(k=4), 0.25).train()
    own, network = model.groups()
    assert (own["rate"], network["rate"]) == (1.0, 0.25)
    assert not {*map(id, own["params"])} & {*map(id, network["params"])}
    model.start_epoch()
    users, items = (torch.from_numpy(x[:64]).long() for x in (split.train.users, split.train.items))
    sum(model.loss(Batch(users, items, items.flip(0))).values()).backward()  # type: ignore[union-attr]
    grads = [p.grad for p in encoder.network.beit3.encoder.layers[0].parameters()]
    assert any(g is not None and bool(g.abs().sum() > 0) for g in grads)
    assert model.features.grad is None


def test_each_item_is_encoded_once_an_epoch(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, start = started(shop)
    seen: list[np.ndarray] = []
    some = Encoder.some
    monkeypatch.setattr(Encoder, "some", lambda self, items: (seen.append(items), some(self, items))[1])
    cell = joint.plan_cell(experiment, start, Taught("joint", 1.0, 0))
    trained = cell.data.train(cell)
    assert len(trained.history) == 2
    assert np.bincount(np.concatenate(seen)).tolist() == [2] * studied.ITEMS
