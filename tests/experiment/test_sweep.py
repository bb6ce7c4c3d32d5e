"""Sweeps: suggestions are the same after a kill, valid chooses, and test stays closed by default."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest
import shops

import schemas
from pipeline import io
from pipeline.benchmark.params import Range, Sweep
from pipeline.errors import UserError
from pipeline.experiment.cell import Pruned, outcome
from pipeline.experiment.plans import search as plans
from pipeline.experiment.plans.search import asked
from pipeline.experiment.run import Experiment
from pipeline.experiment.search import Median, Search, Setting, Tried
from pipeline.experiment.tables import effects
from pipeline.layout import Layout
from pipeline.models import MODELS
from pipeline.run import Run, running
from stages.params import Params
from stages.sweep import main

pytestmark = pytest.mark.usefixtures("one_process")

SPACE = {"lr": Range(low=1e-4, high=1e-1), "layers": Range(low=0, high=3, log=False)}
PARAMS = Sweep(startup=3, warmup=1, workers=2)
FIRST = [{"lr": 0.01, "layers": 2}]


def params(**changed: object) -> Params:
    return Params.model_validate(
        {
            "datasets": ["shop"],
            "sources": {"shop": {"kind": "sample"}},
            "train": {"features": "f", "dim": 8, "batch_size": 64, "epochs": 3, "lr": 0.01},
            "benchmark": {"seeds": 1, "ks": [20]},
            "sweep": changed,
        }
    )


def train(number: int, setting: Setting, rule: Median | None) -> Tried:
    """Return what a training would say: the nearer lr to 0.03 the better, three layers diverge."""
    value = 1 / (1 + abs(setting["lr"] - 0.03) + setting["layers"])
    if setting["layers"] == 3:
        return Tried(number, setting, "failed", [], 0, reason="the loss diverged")
    watch, curve = rule.watch() if rule else lambda _: None, []
    try:
        for epoch in range(4):
            curve.append(value * (epoch + 1) / 4)
            watch(curve[-1])
    except Pruned:
        return Tried(number, setting, "pruned", curve, len(curve), curve[-1])
    return Tried(number, setting, "complete", curve, 4, value)


def drive(until: int, before: list[Tried]) -> list[Tried]:
    """Try settings two at a time, as the pool does, after those that had ended before a kill."""
    search, done = Search(PARAMS, SPACE, 0, FIRST), list(before)
    under_way = deque()
    for number in range(len(done), until):
        under_way.append((number, *search.suggest(number, done)))
        if len(under_way) == PARAMS.workers:
            done.append(train(*under_way.popleft()))
    return [*done, *(train(*one) for one in under_way)]


def test_suggestions_depend_on_what_ended_before_and_on_no_kill() -> None:
    whole = drive(14, [])
    assert [drive(14, whole[:n]) for n in (1, 6, 13)] == [whole] * 3
    assert {one.state for one in whole} == {"complete", "pruned", "failed"}
    assert whole[0].setting == FIRST[0]
    assert drive(16, whole)[:14] == whole  # and it can be extended


def test_a_killed_sweep_ends_as_one_that_was_not(tmp_path: Path) -> None:
    swept(tmp_path / "whole", 6)
    here = "from pathlib import Path; from tests.experiment.test_sweep import swept"
    code = f"{here}\nif __name__ == '__main__': swept(Path({str(tmp_path / 'killed')!r}), 6)"
    script = tmp_path / "script.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    process = subprocess.Popen([sys.executable, script], env=environment)
    cells = Layout(tmp_path / "killed", "shop").cells("sweep")
    while len([*cells.glob("*.json")]) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it could be killed"
    time.sleep(0.5)  # workers end with their parent
    kept = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    swept(tmp_path / "killed", 6)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole, killed = (contents(tmp_path / name) for name in ("whole", "killed"))
    assert killed == whole
    swept(tmp_path / "killed", 6)  # nothing is left to try
    assert contents(tmp_path / "killed") == whole


def swept(root: Path, trials: int) -> None:
    settings = params(startup=2, warmup=1)
    if not root.exists():
        shops.outputs(root)
    with running("sweep", "shop", settings, root) as run:
        main(run, asked(settings, "bpr", None, None, trials))


def contents(root: Path) -> dict[str, bytes]:
    """Return what a sweep left."""
    folder = root / "sweep/shop"
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != "." and path.name != "run.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_plans_say_what_is_tried_first_and_refuse_what_cannot_be() -> None:
    authors = asked(params(), "alignrec", None, "authors", None)
    assert (authors.trials, len(authors.first), authors.names) == (175, 175, ("alignrec", "f", "authors"))
    drawn = asked(params(), "lightgcn", None, None, 9)
    assert (drawn.trials, drawn.first, drawn.features) == (9, [{"lr": 0.01, "l2": 1e-4}], "none")
    narrow = params(spaces={"lightgcn": {"lr": {"low": 0.1, "high": 0.2}}})
    assert asked(narrow, "lightgcn", None, None, 9).first == []
    for arguments, message in (
        ((params(), "alignrec", None, None, None), "either --grid"),
        ((params(), "alignrec", None, "mine", None), "no 'mine'; there are authors"),
        ((params(), "alingrec", None, None, 3), "no model 'alingrec'"),
        ((params(grids={"odd": {"rate": [1]}}), "bpr", None, "odd", None), "unknown key 'bpr.rate'"),
    ):
        with pytest.raises(UserError, match=message):
            asked(*arguments)


def test_authors_are_those_of_the_model() -> None:
    wanted = asked(params(), "ease", None, "authors", None)
    assert [setting["l2"] for setting in wanted.first] == MODELS["ease"].Params.grid["l2"]
    assert asked(params(), "ease", None, None, 3).space["l2"] == Range(low=50, high=2000)


@pytest.mark.parametrize("given", [{"low": 0.2, "high": 0.1}, {"low": 0.0, "high": 0.1}])
def test_an_empty_range_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="low must be below high, and both above 0 with log"):
        params(spaces={"bpr": {"lr": given}})


def test_effects_are_the_best_at_each_pair_of_values() -> None:
    def tried(number: int, lr: float, cca: float, valid: float | None) -> Tried:
        return Tried(number, {"lr": lr, "cca": cca}, "failed" if valid is None else "complete", [], 1, valid)

    each = [tried(0, 1, 0.08, 0.3), tried(1, 1, 0.07, 0.4), tried(2, 2, 0.0001, 0.2), tried(3, 2, 0.08, None)]
    rows = effects.effects(each, {"lr": [1, 2], "cca": Range(low=1e-5, high=1)})
    assert [(row["x"], row["y"], row["valid"], row["trials"]) for row in rows] == [
        ("1", "0.0316", 0.4, 2),
        ("2", "0.000316", 0.2, 1),
    ]


def test_test_stays_closed_by_default_and_a_diverging_loss_fails(tmp_path: Path) -> None:
    shops.outputs(tmp_path)
    for settings, opened in ((params(), 0), (params(test_selected=True), 1)):
        experiment = Experiment(Run("sweep", "shop", settings, tmp_path), 1)
        wanted = asked(settings, "bpr", None, None, 1)
        (cell,) = plans.trainings(experiment, wanted, {"lr": 0.05, "l2": 1e-4})
        values = outcome(cell).values
        assert (values["state"], values["epochs"], len(values["judged"])) == ("complete", 3, opened)
        assert values["best"]["valid_recall@20"] == max(values["curve"])
    (wild,) = plans.trainings(experiment, wanted, {"lr": 1e30, "l2": 1e-4})
    failed = outcome(wild, tolerant=True).values
    assert (failed["state"], failed["best"], "diverged in epoch" in failed["reason"]) == ("failed", {}, True)
    with pytest.raises(UserError, match="diverged in epoch"):
        outcome(wild)


def test_a_grid_is_tried_whole_and_each_winner_stands_under_its_name(tmp_path: Path) -> None:
    layout = shops.outputs(tmp_path)
    settings = params(grids={"two": {"lr": [1e-4, 0.05], "l2": [1e-4]}}, test_selected=True)
    plan = asked(settings, "bpr", None, "two", None)
    with running("sweep", "shop", settings, tmp_path) as run:
        main(run, plan)
    assert layout.sweeps() == [plan.names]
    assert {row["map"] for row in io.read_json(layout.sweep_heatmaps())} == {"bpr none two: lr, l2"}
    trials = io.read_table(layout.sweep_trials(*plan.names), schemas.trials(["lr", "l2"]))
    assert trials["lr"].to_pylist() == [1e-4, 0.05]
    assert trials["valid"][1].as_py() > trials["valid"][0].as_py()
    results = io.read_table(layout.sweep_results(*plan.names), schemas.RESULTS).to_pylist()
    assert {(row["selected_by"], row["seed"], row["split"]) for row in results} == {
        (by, 0, part) for by in ("valid", "test") for part in ("valid", "test")
    }
