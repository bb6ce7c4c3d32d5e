"""Sweeps: suggestions are the same after a kill, valid chooses, and test stays closed by default."""

import os
import signal
import subprocess
import sys
from collections import deque
from itertools import islice
from pathlib import Path

import pytest
import shops
from pipeline.benchmark.study import Curve, Outcome, Pruned, Study, Suggestion

import schemas
from pipeline import io
from pipeline.benchmark import sweep
from pipeline.benchmark.params import Range, Sweep
from pipeline.benchmark.settings import protocol_of
from pipeline.errors import UserError
from pipeline.run import running
from stages.params import Params
from stages.sweep import main

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


def train(suggestion: Suggestion) -> Outcome:
    """Return what a training would say: the nearer lr to 0.03 the better, three layers diverge."""
    value = 1 / (1 + abs(suggestion.setting["lr"] - 0.03) + suggestion.setting["layers"])
    if suggestion.setting["layers"] == 3:
        return Outcome(suggestion.number, "failed", [], 0, reason="the loss diverged")
    curve = Curve(PARAMS, suggestion.ended)
    try:
        for epoch in range(4):
            curve.add(value * (epoch + 1) / 4)
    except Pruned:
        return Outcome(suggestion.number, "pruned", curve.best, len(curve.best), curve.best[-1])
    return Outcome(suggestion.number, "complete", curve.best, 4, value)


def drive(path: Path, until: int, killed_after: int = -1) -> list[tuple[dict[str, int | float], Outcome]]:
    """Try settings two at a time, as the pool does; a kill leaves two under way."""
    study = Study(path, PARAMS, SPACE, 0, FIRST)
    suggestions = study.ask(until)
    under_way = deque(islice(suggestions, 2))
    for n in range(until):
        if n == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if not under_way:
            break
        study.tell(train(under_way.popleft()))
        under_way.extend(islice(suggestions, 1))
    return study.outcomes()


def test_a_sweep_that_was_killed_suggests_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    here = "from pathlib import Path; from tests.benchmark.test_sweep import drive"
    code = f"{here}; drive(Path({str(tmp_path / 'b')!r}), 14, 6)"
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(Study(tmp_path / "b", PARAMS, SPACE, 0, FIRST).outcomes()) == 6
    whole, resumed = drive(tmp_path / "a", 14), drive(tmp_path / "b", 14)
    assert resumed == whole
    assert [outcome.number for _, outcome in whole] == list(range(14))
    assert {outcome.state for _, outcome in whole} == {"complete", "pruned", "failed"}
    assert whole[0][0] == FIRST[0]
    assert drive(tmp_path / "b", 14) == whole  # nothing is left to try
    assert drive(tmp_path / "b", 16)[:14] == whole  # and it can be extended


def test_a_setting_whose_record_is_gone_is_tried_again_and_gives_the_same(tmp_path: Path) -> None:
    whole = drive(tmp_path, 14)
    (tmp_path / "5.json").unlink()
    assert len(Study(tmp_path, PARAMS, SPACE, 0, FIRST).outcomes()) == 5
    assert drive(tmp_path, 14) == whole


def test_plans_say_what_is_tried_first_and_refuse_what_cannot_be() -> None:
    authors = sweep.plan(params(), "alignrec", None, "authors", None)
    assert (authors.trials, len(authors.first), authors.names) == (175, 175, ("alignrec", "f", "authors"))
    drawn = sweep.plan(params(), "lightgcn", None, None, 9)
    assert (drawn.trials, drawn.first, drawn.features) == (9, [{"lr": 0.01, "l2": 1e-4}], "none")
    narrow = params(spaces={"lightgcn": {"lr": {"low": 0.1, "high": 0.2}}})
    assert sweep.plan(narrow, "lightgcn", None, None, 9).first == []
    for arguments, message in (
        ((params(), "alignrec", None, None, None), "either --grid"),
        ((params(), "alignrec", None, "mine", None), "no 'mine'; there are authors"),
        ((params(), "alingrec", None, None, 3), "no model 'alingrec'"),
        ((params(grids={"odd": {"rate": [1]}}), "bpr", None, "odd", None), "unknown key 'bpr.rate'"),
    ):
        with pytest.raises(UserError, match=message):
            sweep.plan(*arguments)


@pytest.mark.parametrize("given", [{"low": 0.2, "high": 0.1}, {"low": 0.0, "high": 0.1}])
def test_an_empty_range_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="low must be below high, and both above 0 with log"):
        params(spaces={"bpr": {"lr": given}})


def test_effects_are_the_best_at_each_pair_of_values() -> None:
    def outcome(number: int, valid: float | None) -> Outcome:
        return Outcome(number, "failed" if valid is None else "complete", [], 1, valid)

    tried = [({"lr": 1, "cca": 0.08}, outcome(0, 0.3)), ({"lr": 1, "cca": 0.07}, outcome(1, 0.4))]
    tried += [({"lr": 2, "cca": 0.0001}, outcome(2, 0.2)), ({"lr": 2, "cca": 0.08}, outcome(3, None))]
    rows = sweep.effects(tried, {"lr": [1, 2], "cca": Range(low=1e-5, high=1)})
    assert [(row["x"], row["y"], row["valid"], row["trials"]) for row in rows] == [
        ("1", "0.0316", 0.4, 2),
        ("2", "0.000316", 0.2, 1),
    ]


def test_test_stays_closed_by_default_and_a_diverging_loss_fails(tmp_path: Path) -> None:
    layout, parts = shops.outputs(tmp_path), shops.two_tastes()
    for settings, opened in ((params(), False), (params(test_selected=True), True)):
        plan = sweep.plan(settings, "bpr", None, None, 1)
        attempt = sweep.Attempt(layout, settings, protocol_of(settings, "shop", parts), plan)
        outcome = attempt(Suggestion(0, {"lr": 0.05, "l2": 1e-4}, []))
        assert (outcome.state, outcome.epochs, outcome.test is not None) == ("complete", 3, opened)
        assert outcome.valid == max(outcome.curve)
    failed = attempt(Suggestion(1, {"lr": 1e30, "l2": 1e-4}, []))
    assert (failed.state, failed.valid, "diverged in epoch" in failed.reason) == ("failed", None, True)


def test_a_grid_is_tried_whole_and_each_winner_stands_under_its_name(tmp_path: Path) -> None:
    layout = shops.outputs(tmp_path)
    settings = params(grids={"two": {"lr": [1e-4, 0.05], "l2": [1e-4]}}, test_selected=True)
    plan = sweep.plan(settings, "bpr", None, "two", None)
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
