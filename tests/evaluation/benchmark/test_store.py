"""The store ignores altered records and those of other cells, and trains nothing twice."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import kill_after, started
from shop import tastes, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.cell import Cell, DatasetData
from alignrec.pipeline.evaluation.benchmark.experiment import Experiment, Store, train_cell
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime import code, engine
from alignrec.pipeline.runtime.record import record_digest
from alignrec.pipeline.runtime.run import ALTERED, Run

PARAMS = {
    "train": {"features": "f", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01},
    "study": {"mask": {"ratios": []}, "tail": False, "workers": 1},
}


def experiment(root: Path, **sections: Any) -> Experiment:
    if not (root / "interactions").exists():
        tastes.outputs(root)
    return Experiment(Run("study", "shop", toy.params(**PARAMS | sections), root), 1)


def cell(made: Experiment, seed: int = 0) -> Cell:
    return Cell(DatasetData(made.layout), "bpr", MODELS["bpr"].Params(epochs=2), made.rules, seed, (5, 20))


@pytest.fixture(autouse=True)
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Train in this process, and return what was trained."""
    trained: list[Cell] = []

    def in_processes(work: Any, jobs: Any, workers: int) -> Any:
        for job in jobs:
            trained.append(job)
            yield job, work(job)

    monkeypatch.setattr(engine, "in_processes", in_processes)
    return trained


def contents(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.glob("*")}


def rewritten_with_digest(path: Path, **changed: Any) -> None:
    values = json.loads(path.read_bytes())
    values.pop("sha256")
    io.write_json(path, values | changed | {"sha256": record_digest(values | changed)})


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "record half written": lambda record, _: record.write_bytes(record.read_bytes()[:99]),
    "record of another shape": lambda record, _: record.write_bytes(b"[3]"),
    "record altered": lambda record, _: record.write_bytes(record.read_bytes().replace(b'"complete"', b'"failed"')),
    "record of another cell": lambda record, _: rewritten_with_digest(record, key="0" * 64),
    "rankings altered": lambda _, ranked: ranked.write_bytes(ranked.read_bytes()[:-9] + b"000000000"),
    "rankings gone": lambda _, ranked: ranked.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_believed_is_trained_again_and_said(
    tmp_path: Path, damage: str, trainings: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    made = experiment(tmp_path)
    one, other = cell(made), cell(made, 1)
    made.complete({0: one, 1: other})
    whole = contents(made.store)
    record = made.store.folder / f"{one.key}.json"
    DAMAGES[damage](record, record.with_suffix(".parquet"))
    assert made.store.get(one) is None
    trainings.clear()
    made.complete({0: one, 1: other})
    assert [trained.key for trained in trainings] == [one.key]
    assert contents(made.store) == whole
    assert f"{record} {ALTERED}\n" in capsys.readouterr().err


def test_another_code_setting_or_seed_is_another_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment(tmp_path)
    one = cell(made)
    made.complete({0: one})
    changed = {
        "settings": replace(one, settings=MODELS["bpr"].Params(epochs=3)),
        "protocol": replace(one, protocol=replace(one.protocol, rule="strict")),
        "seed": replace(one, seed=1),
        "cutoffs": replace(one, ks=(5,)),
        "opens": replace(one, opens="test"),
        "model": replace(one, model="lightgcn"),
        "features": replace(one, data=DatasetData(made.layout, "f")),
    }
    assert len({one.key, *(another.key for another in changed.values())}) == 1 + len(changed)
    assert [what for what, another in changed.items() if made.store.get(another)] == []
    before = changed["features"].key
    folder = made.layout.features("f")
    table = io.read_features(folder).drop_columns(["vector"]).append_column("vector", io.vectors(tastes.content(3)))
    io.write_table(table, io.shard(folder, "features", 0), schemas.features(tastes.WIDTH))
    assert replace(changed["features"]).key != before
    fingerprint = code.fingerprint
    monkeypatch.setattr(code, "fingerprint", lambda *modules: fingerprint(*modules) + "edited")
    assert replace(one).key != one.key
    assert made.store.get(replace(one)) is None


def test_cells_of_other_code_or_of_no_plan_are_deleted_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = experiment(tmp_path)
    old = cell(made)
    made.complete({0: old, 1: cell(made, 1)})
    fingerprint = code.fingerprint
    monkeypatch.setattr(code, "fingerprint", lambda *modules: fingerprint(*modules) + "edited")
    again = experiment(tmp_path)
    again.complete({0: cell(again)})
    again.end()
    new = cell(again).key
    assert sorted(contents(again.store)) == sorted([f"{new}.json", f"{new}.parquet"])
    assert "records of 2 trainings" in capsys.readouterr().err
    assert again.run.measured["deleted"] == 2
    again.end()
    assert "deleted" not in capsys.readouterr().err


# --- processes


def work(root: Path, n: int) -> None:
    made = experiment(root)
    for seed in range(n):
        train_cell(made.store, False, cell(made, seed))


def test_two_processes_at_once_train_each_cell_once_and_corrupt_nothing(tmp_path: Path) -> None:
    made = experiment(tmp_path)
    both = [started(work, tmp_path, 6) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    cells = [cell(made, seed) for seed in range(6)]
    assert all(made.store.get(one) for one in cells)
    assert len(contents(made.store)) == 12  # a record and rankings each, and no lock
    whole = contents(made.store)
    alone = experiment(tmp_path / "alone")
    alone.complete(dict(enumerate(cell(alone, seed) for seed in range(6))))
    assert contents(alone.store) == whole


def work_until_killed(root: Path) -> None:
    kill_after(Store, "put", 3)
    work(root, 4)


def test_killed_it_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, trainings: list[Cell]) -> None:
    made = experiment(tmp_path)
    assert started(work_until_killed, tmp_path).wait() == -signal.SIGKILL
    assert len([*made.store.folder.glob("*.json")]) == 3
    made.complete(dict(enumerate(cell(made, seed) for seed in range(5))))
    assert len(trainings) == 2
    alone = experiment(tmp_path / "alone")
    alone.complete(dict(enumerate(cell(alone, seed) for seed in range(5))))
    ours = contents(made.store)  # and the lock of the killed one
    assert {name: ours[name] for name in contents(alone.store)} == contents(alone.store)
