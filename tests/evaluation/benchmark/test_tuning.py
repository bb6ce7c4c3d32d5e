"""Tuning: equal settings for every feature set, chosen on valid only, and none tried twice."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from shop import tastes, toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark import plan
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel, rankings_path, train_and_judge
from alignrec.pipeline.evaluation.benchmark.experiment import CellResult, Experiment
from alignrec.pipeline.evaluation.benchmark.params import Range
from alignrec.pipeline.evaluation.benchmark.plan import Candidate, Tried, halton_points, list_labels
from alignrec.pipeline.evaluation.benchmark.settings import model_settings
from alignrec.pipeline.evaluation.evidence import as_json
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.report.outputs import Outputs
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run

pytestmark = pytest.mark.usefixtures("one_process")

SPACES = {
    "alignrec": {"lr": {"low": 1e-3, "high": 0.05}, "cca": {"low": 1e-3, "high": 0.1}},
    "bpr": {"lr": {"low": 1e-3, "high": 0.05}},
}


def params(search: dict[str, object] | None = None, **benchmark: object) -> Params:
    return toy.params(
        train={"features": "f", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01},
        benchmark={"models": ["bpr", "alignrec"], "features": ["f"], "seeds": 2, "ks": [5, 20]} | benchmark,
        search=search or {"spaces": SPACES},
    )


def test_draws_are_in_the_space_and_fewer_begin_more() -> None:
    space = {"lr": Range(low=1e-4, high=1e-1), "layers": Range(low=0, high=3), "dim": Range(low=8, high=64)}
    many = halton_points(space, 200, seed=1)
    assert [halton_points(space, n, seed=1) for n in (0, 3)] == [[], many[:3]]
    assert halton_points(space, 3, seed=2) != many[:3]
    assert {type(setting["dim"]) for setting in many} == {int}
    assert {setting["layers"] for setting in many} == {0, 1, 2, 3}
    assert all(1e-4 <= setting["lr"] <= 1e-1 and 8 <= setting["dim"] <= 64 for setting in many)
    decades = [sum(low <= setting["lr"] < 10 * low for setting in many) for low in (1e-4, 1e-3, 1e-2)]
    assert max(decades) - min(decades) <= 4  # as even as a quasi-random sequence is, on a logarithmic scale


def test_every_feature_set_of_a_model_tries_the_same_settings_and_the_given_one_first(tmp_path: Path) -> None:
    tastes.outputs(tmp_path)
    settings = params(features=["f"], budget=3)
    made = plan.tune_models(experiment(tmp_path, settings), list_labels(settings)).tried
    assert list(made) == [("alignrec", "f"), ("bpr", "none")]  # the slow ones first
    of_alignrec = plan.tried_settings(settings, "shop", "alignrec")
    assert [one.setting for one in made["alignrec", "f"]] == of_alignrec
    assert of_alignrec[0] == {"lr": 0.01, "cca": 0.01}
    assert len({json.dumps(setting) for setting in of_alignrec}) == 3
    assert plan.tried_settings(params(budget=5), "shop", "alignrec")[:3] == of_alignrec


def experiment(root: Path, settings: Params) -> Experiment:
    return Experiment(Run("benchmark", "shop", settings, root), 1)


def tried(valid: float | None, **setting: float) -> Tried:
    values = {"best": {} if valid is None else {"valid_recall@20": valid}, "reason": "nan"}
    return Tried(setting, CellResult("", values, {}))


def test_ablations_have_the_setting_of_the_full_model_but_for_what_they_name() -> None:
    settings = params(budget=2, ablations={"no-cca": {"cca": 0.0}, "other": {"features": "g"}})
    tuned = plan.Tuned({Candidate("alignrec", "f"): [tried(0.5, lr=0.02, cca=0.05)]})
    for name, expected in (("", (0.02, 0.05)), ("no-cca", (0.02, 0.0)), ("other", (0.02, 0.05))):
        entry = CellLabel("alignrec", "g" if name == "other" else "f", 0, name)
        chosen = model_settings(tuned.params(settings, entry), "alignrec", name)
        assert (chosen.lr, chosen.cca) == expected  # type: ignore[attr-defined]
    assert tuned.params(settings, CellLabel("bpr", "none", 0)) == settings


def test_the_best_on_valid_is_chosen_the_first_of_equal_ones_and_a_failed_one_never() -> None:
    tuned = plan.Tuned({Candidate("bpr", "none"): [tried(None), tried(0.2), tried(0.3, lr=1), tried(0.3)]})
    assert tuned.best(Candidate("bpr", "none")).setting == {"lr": 1}
    for features, named in (("none", "of bpr failed"), ("f", "of bpr on f failed")):
        candidate = Candidate("bpr", features)
        with pytest.raises(UserError, match=named):
            plan.Tuned({candidate: [tried(None)]}).best(candidate)


def test_a_range_below_zero_is_scaled_linearly() -> None:
    assert [plan.scale_point(Range(low=-1.0, high=3.0), u) for u in (0, 0.25, 0.75)] == [-1, 0, 2]


def test_a_budget_is_spent_once_and_can_be_enlarged(tmp_path: Path) -> None:
    layout: Layout = tastes.outputs(tmp_path)
    tastes.benchmark(tmp_path, params(budget=3))
    table = io.read_table(layout.tuning, schemas.TUNING).to_pylist()
    for contender in (("alignrec", "f"), ("bpr", "none")):
        rows = [row for row in table if (row["model"], row["features"]) == contender]
        (chosen,) = [row for row in rows if row["chosen"]]
        assert chosen["valid"] == max(row["valid"] for row in rows)
        setting = json.loads(chosen["setting"])
        record = io.read_json(rankings_path(layout, CellLabel(*contender, 1)).with_suffix(".json"))
        assert record["cell"]["settings"].items() >= setting.items()
    assert io.read_json(layout.protocol)[0]["tuning"]["budget"] == 3
    outputs = Outputs(layout)
    written = as_json(outputs.results, outputs.protocols, outputs.tuning)
    assert written["trials"] == [row | {"setting": json.loads(row["setting"])} for row in table]

    tries, measured = cells(layout, "valid"), cells(layout, "rankings")
    assert (len(tries), len(measured)) == (6, 4)
    kept = {path: path.stat().st_mtime_ns for path in tries}

    tastes.benchmark(tmp_path, params(budget=4))
    assert {path: path.stat().st_mtime_ns for path in tries} == kept
    assert len(io.read_table(layout.tuning, schemas.TUNING)) == len(cells(layout, "valid")) == 8

    tastes.benchmark(tmp_path, params())
    assert not layout.tuning.exists()
    assert cells(layout, "valid") == []
    assert "tuning" not in io.read_json(layout.protocol)[0]


def cells(layout: Layout, opens: str) -> list[Path]:
    """Return the records of cells with this value of `opens`."""
    records = sorted(layout.cells("benchmark").glob("*.json"))
    return [path for path in records if io.read_json(path)["cell"]["opens"] == opens]


def test_settings_are_tried_without_a_look_at_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = tastes.outputs(tmp_path)
    monkeypatch.setattr(
        "alignrec.pipeline.evaluation.benchmark.cell.open_test", lambda *_: pytest.fail("test was opened")
    )
    rows = io.read_table(layout.interactions, schemas.INTERACTIONS)
    cell = plan.trial_cell(experiment(tmp_path, params(budget=2)), ("bpr", "none"), {"lr": 0.02})
    trained = train_and_judge(cell)
    items, test = rows["item_id"].to_numpy(), rows["split"].to_numpy() == schemas.TEST
    others = np.where(test, (items + 2) % tastes.ITEMS, items).astype(np.int32)
    moved = rows.set_column(1, "item_id", pa.array(others))
    io.write_table(moved, layout.interactions, schemas.INTERACTIONS)
    assert train_and_judge(cell) == trained
    values, rankings = trained
    assert values["state"] == "complete"
    assert (values["judged"], rankings) == ([], {})
