"""Sweeps train every value once, evaluate on valid, and never open test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shops
import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark import study
from alignrec.pipeline.benchmark.cell import train_and_judge
from alignrec.pipeline.benchmark.experiment import Experiment
from alignrec.pipeline.benchmark.settings import model_settings, protocol_of
from alignrec.pipeline.benchmark.study import RECALL
from alignrec.pipeline.evaluation import metrics
from alignrec.pipeline.graph import neighbours
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import Run
from alignrec.pipeline.harness.seeds import seed_for
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.train import inputs
from alignrec.pipeline.train.loop import fit

pytestmark = pytest.mark.usefixtures("one_process")

SWEEPS: dict[str, Any] = {
    "rate": {"train.lr": [0.001, 0.01]},
    "graph": {"graph.k": [2, 4], "train.item_layers": [0, 1]},
}
PARAMS = toy.params(
    train={"features": "f", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01},
    graph={"k": 4},
    study={"sweeps": SWEEPS, "seeds": 2},
)


def experiment(root: Path) -> Experiment:
    return Experiment(Run("study", "shop", PARAMS, root), 1)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A shop whose two sweeps have been run."""
    root = shops.outputs(tmp_path_factory.mktemp("shop")).root
    made = experiment(root)
    made.write(study.sweep_tables(made))
    made.end()
    return Layout(root, "shop", ("study", ""))


def rows(layout: Layout) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = io.read_table(layout.study("sweeps"), schemas.SWEEPS).to_pylist()
    return table


def values(layout: Layout, sweep: str, **setting: float) -> list[float]:
    """Return valid Recall@20 by seed."""
    wanted = sweep, json.dumps({key.replace("_", ".", 1): value for key, value in setting.items()})
    return [row[RECALL] for row in rows(layout) if (row["sweep"], row["setting"]) == wanted]


def test_every_setting_has_its_seeds_and_equal_trainings_run_once(layout: Layout) -> None:
    assert [(row["sweep"], row["setting"], row["seed"]) for row in rows(layout)] == [
        (sweep, json.dumps(setting), seed)
        for sweep, settings in (
            ("rate", [{"train.lr": 0.001}, {"train.lr": 0.01}]),
            ("graph", [{"graph.k": k, "train.item_layers": n} for k in (2, 4) for n in (0, 1)]),
        )
        for setting in settings
        for seed in (0, 1)
    ]
    assert len([*layout.cells("study").glob("*.json")]) == 2 * 5  # of six: the given setting is in both
    assert values(layout, "rate", train_lr=0.01) == values(layout, "graph", graph_k=4, train_item_layers=1)


def test_valid_is_that_of_the_setting_and_its_graph(layout: Layout) -> None:
    data = inputs.read_inputs(layout, "f")
    edges, seed = neighbours.find_neighbours(shops.content(), 2), seed_for("sweep", "shop", "alignrec", 1)
    settings = model_settings(PARAMS, "alignrec")
    fitted = fit(MODELS["alignrec"], data.split, data.features, edges, settings, seed)
    assert values(layout, "graph", graph_k=2, train_item_layers=1)[1] == pytest.approx(fitted.valid[RECALL], abs=1e-12)
    assert {row["fingerprint"] for row in rows(layout)} == {protocol_of(PARAMS, "shop", data.split).fingerprint}


def test_test_stays_closed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "evaluate_vectors", lambda *_: pytest.fail("test is opened"))
    cell = study.sweep_cell(experiment(layout.root), {"train.lr": 0.01}, 0, "study.sweeps.x")
    record = train_and_judge(cell, tolerant=True).values
    assert record["best"][f"valid_{RECALL}"] == values(layout, "rate", train_lr=0.01)[0]


def test_one_key_is_a_curve_and_two_are_a_map(layout: Layout) -> None:
    curves, maps = (io.read_json(layout.study_plot(name)) for name in ("curves", "heatmaps"))
    points = [("rate", "train.lr", 0.001, 2), ("rate", "train.lr", 0.01, 2)]
    assert [(p["sweep"], p["key"], p["value"], p["seeds"]) for p in curves] == points
    by_seed = values(layout, "rate", train_lr=0.001)
    assert (curves[0][RECALL], curves[0]["sd"]) == (np.mean(by_seed), np.std(by_seed, ddof=1))
    assert {(p["map"], p["x"], p["y"]) for p in maps} == {
        ("study alignrec graph: graph.k, train.item_layers", k, n) for k in ("2", "4") for n in ("0", "1")
    }
    found = next(p for p in maps if (p["x"], p["y"]) == ("2", "0"))
    assert found["valid"] == np.mean(values(layout, "graph", graph_k=2, train_item_layers=0))
