"""Sweeps on a toy shop: every value is trained once and measured on valid; test stays closed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studied

import schemas
from pipeline import engine, io
from pipeline.benchmark.settings import model_settings, protocol_of
from pipeline.evaluation import trial as opening
from pipeline.experiment.cell import Outcome, outcome
from pipeline.experiment.run import Experiment
from pipeline.experiment.tables import sweeps
from pipeline.graph import neighbours
from pipeline.layout import Layout
from pipeline.models import MODELS
from pipeline.seeds import seed_for
from pipeline.study.branch import Branch
from pipeline.study.summaries import RECALL
from pipeline.train import inputs
from pipeline.train.loop import fit
from stages.params import Params, load

pytestmark = pytest.mark.usefixtures("one_process")

SWEEPS: dict[str, Any] = {
    "rate": {"train.lr": [0.001, 0.01]},
    "graph": {"graph.k": [2, 4], "train.item_layers": [0, 1]},
    "length": {"pretrain.steps": [0, 4]},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with its encoder, and three sweeps that have been run."""
    root = tmp_path_factory.mktemp("shop")
    studied.part("sweeps", studied.encoded(root, study={"sweeps": SWEEPS, "seeds": 2, "workers": 1}), root)
    return root


def rows(root: Path) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = io.read_table(Layout(root, "toy").study("sweeps"), schemas.SWEEPS).to_pylist()
    return table


def values(root: Path, sweep: str) -> dict[str, list[float]]:
    """Return setting -> valid Recall@20 by seed."""
    out: dict[str, list[float]] = {}
    for row in rows(root):
        if row["sweep"] == sweep:
            out.setdefault(row["setting"], []).append(row[RECALL])
    return out


def test_every_setting_of_a_sweep_has_its_seeds(shop: Path) -> None:
    assert [(row["sweep"], row["setting"], row["seed"]) for row in rows(shop)] == [
        (sweep, json.dumps(setting), seed)
        for sweep, settings in (
            ("rate", [{"train.lr": 0.001}, {"train.lr": 0.01}]),
            ("graph", [{"graph.k": k, "train.item_layers": n} for k in (2, 4) for n in (0, 1)]),
            ("length", [{"pretrain.steps": 0}, {"pretrain.steps": 4}]),
        )
        for setting in settings
        for seed in (0, 1)
    ]


def test_equal_trainings_of_several_sweeps_run_once(shop: Path) -> None:
    layout = Layout(shop, "toy")
    assert len([*layout.cells("study").glob("*.json")]) == 2 * 6  # of eight: the given setting is in all three
    assert len([*(layout.folder("study") / "encoders").glob("*/")]) == 1  # steps: 4 is the dataset's own encoder
    standing = values(shop, "rate")['{"train.lr": 0.01}']
    assert values(shop, "length")['{"pretrain.steps": 4}'] == standing
    assert values(shop, "graph")['{"graph.k": 4, "train.item_layers": 1}'] == standing


def test_valid_is_that_of_the_setting_and_its_graph(shop: Path) -> None:
    params, layout = load(shop / "params.yaml"), Layout(shop, "toy")
    data = inputs.read(layout, "beit3")
    assert data.features is not None
    edges = neighbours.neighbours(data.features, 2)
    settings = model_settings(params, "alignrec")
    seed = seed_for("sweep", "toy", "alignrec", 1)
    fitted = fit(MODELS["alignrec"], data.split, data.features, edges, settings, seed)
    row = next(r for r in rows(shop) if (r["setting"], r["seed"]) == ('{"graph.k": 2, "train.item_layers": 1}', 1))
    assert (row[RECALL], row["best_epoch"]) == (pytest.approx(fitted.valid[RECALL], abs=1e-12), fitted.best_epoch)
    assert row["fingerprint"] == protocol_of(params, "toy", data.split).fingerprint


def test_test_stays_closed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any) -> None:
        raise AssertionError("test is opened")

    monkeypatch.setattr(opening, "evaluate", opened)
    params, layout = load(shop / "params.yaml"), Layout(shop, "toy")
    record = trained(params, layout, {"train.lr": 0.01}).values
    assert record["best"][f"valid_{RECALL}"] == values(shop, "rate")['{"train.lr": 0.01}'][0]


def trained(params: Params, layout: Layout, setting: dict[str, float]) -> Outcome:
    """Train a setting with its first seed."""
    experiment = Experiment(studied.run("study", params, layout.root), 1)
    point = sweeps.point(params, layout, setting, "study.sweeps.x")
    return outcome(sweeps.plan_cell(experiment, point, 0), tolerant=True)


def test_one_key_is_a_curve_and_two_are_a_map(shop: Path) -> None:
    layout = Layout(shop, "toy")
    curves, maps = (io.read_json(layout.study_plot(name)) for name in ("curves", "heatmaps"))
    assert [(p["sweep"], p["key"], p["value"], p["seeds"]) for p in curves] == [
        ("length", "pretrain.steps", 0, 2),
        ("length", "pretrain.steps", 4, 2),
        ("rate", "train.lr", 0.001, 2),
        ("rate", "train.lr", 0.01, 2),
    ]
    by_seed = values(shop, "rate")['{"train.lr": 0.001}']
    assert (curves[2][RECALL], curves[2]["sd"]) == (np.mean(by_seed), np.std(by_seed, ddof=1))
    assert {(p["map"], p["x"], p["y"]) for p in maps} == {
        ("study alignrec graph: graph.k, train.item_layers", k, n) for k in ("2", "4") for n in ("0", "1")
    }
    cell = next(p for p in maps if (p["x"], p["y"]) == ("2", "0"))
    assert cell["valid"] == np.mean(values(shop, "graph")['{"graph.k": 2, "train.item_layers": 0}'])


def test_three_keys_have_a_map_a_pair() -> None:
    settings = [{"train.cca": a, "train.reg": b, "graph.k": k} for a in (0.1, 0.2) for b in (0.3, 0.4) for k in (5, 9)]
    label = {"dataset": "d", "sweep": "s", "features": "f", "protocol": "p", "fingerprint": "f", "reason": ""}
    made = [
        label | {"setting": json.dumps(s), "seed": 0, RECALL: 0.01 * i, "best_epoch": 0} for i, s in enumerate(settings)
    ]
    maps = sweeps.heatmaps(schemas.SWEEPS.empty_table().from_pylist(made, schemas.SWEEPS))
    for pair in ("train.cca, train.reg", "train.cca, graph.k"):
        assert len([p for p in maps if p["settings"] == pair]) == 4
    best = next(p for p in maps if (p["settings"], p["x"], p["y"]) == ("train.cca, train.reg", "0.1", "0.3"))
    assert best["valid"] == 0.01  # of k 5 and 9


def test_a_second_run_trains_nothing(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    before = rows(shop)
    monkeypatch.setattr(engine, "each", lambda _, todo, __: never() if todo else iter(()))
    monkeypatch.setattr("pipeline.pretrain.train.fit", never)
    studied.part("sweeps", load(shop / "params.yaml"), shop)
    assert rows(shop) == before


def test_only_what_lacks_is_trained(shop: Path) -> None:
    layout = Layout(shop, "toy")
    records = sorted(layout.cells("study").glob("*.json"))
    kept = {path: path.stat().st_mtime_ns for path in records[1:]}
    lost = records[0].read_bytes()
    records[0].unlink()
    studied.part("sweeps", load(shop / "params.yaml"), shop)
    assert records[0].read_bytes() == lost
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_loss_that_diverges_is_a_row(shop: Path) -> None:
    params, layout = load(shop / "params.yaml"), Layout(shop, "toy")
    record = trained(params, layout, {"train.lr": 1e30}).values
    assert (record["state"], record["best"]) == ("failed", {})
    assert "the loss diverged" in record["reason"]


def test_an_encoder_of_its_own_lies_apart(shop: Path) -> None:
    params, layout = load(shop / "params.yaml"), Layout(shop, "toy")
    own = sweeps.point(params, layout, {"pretrain.steps": 0}, "study.sweeps.x").data
    assert isinstance(own, Branch)
    assert own.items == layout.items
    assert own.features("beit3") != layout.features("beit3")
    assert own.features("beit3").is_dir()
    assert own.teacher_features("tfidf") == layout.teacher_features("tfidf"), "encoded once for all"
