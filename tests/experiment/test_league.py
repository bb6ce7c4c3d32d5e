"""A league: every model alike; valid chooses; what is trained stays; the benchmark shares its own split."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shops
from scipy.stats import kendalltau

import schemas
from pipeline import engine, io
from pipeline.errors import UserError
from pipeline.evaluation.evidence import comparisons
from pipeline.experiment.plans import league as plans
from pipeline.experiment.run import Experiment, Work
from pipeline.experiment.tables import league as tables
from pipeline.interactions.audit import audit
from pipeline.layout import Layout
from pipeline.models import MODELS
from pipeline.report import standings as facts
from pipeline.run import Run, running
from stages import report
from stages.benchmark import main
from stages.params import Params

BUDGET = 2


def params(**sections: Any) -> Params:
    own = {"models": ["bpr", "ease", "vbpr"], "features": ["f", "shuffled"], "seeds": 2, "splits": 2, "workers": 1}
    own |= {"ks": [20], "budget": BUDGET}
    return Params.model_validate(
        {
            "datasets": ["shop"],
            "sources": {"shop": {"kind": "sample"}},
            "train": {"features": "f", "dim": 8, "batch_size": 64, "epochs": 3, "lr": 0.01},
        }
        | sections
        | {"benchmark": own | sections.get("benchmark", {})}
    )


def shop(root: Path) -> Layout:
    """Write the shop with feature sets `f` and `shuffled`."""
    layout = shops.outputs(root)
    table = io.read_features(layout.features("f"))
    rows = np.random.default_rng(0).permutation(shops.ITEMS)
    vectors = io.vectors(io.matrix(table["vector"])[rows])
    wrong = table.set_column(table.column_names.index("vector"), "vector", vectors)
    io.write_table(wrong, io.shard(layout.features("shuffled"), "features", 0), schemas.features(shops.WIDTH))
    io.write_table(io.read_table(layout.edges("f"), schemas.EDGES), layout.edges("shuffled"), schemas.EDGES)
    return layout


def play(root: Path, own: Params) -> Path:
    with running("benchmark", "shop", own, root) as run:
        main(run)
    return root / "benchmark/shop"


def season(root: Path, **sections: Any) -> plans.Season:
    own = params(**sections)
    return plans.season(Experiment(Run("benchmark", "shop", own, root), 1))


def recorded(patched: pytest.MonkeyPatch) -> list[str]:
    """Train in this process, and return the list of trained models."""
    trained: list[str] = []

    def each(work: Work, jobs: Any, workers: int) -> Any:
        for job in jobs:
            trained.extend(cell.model for cell in job)
            yield job, work(job)

    patched.setattr(engine, "each", each)
    return trained


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return recorded(monkeypatch)


@pytest.fixture(scope="module")
def league(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return the outputs of a benchmark over two splits, and the models that were trained for it."""
    root = tmp_path_factory.mktemp("league")
    shop(root)
    with pytest.MonkeyPatch.context() as patched:
        trained = recorded(patched)
        play(root, params())
    return root, trained


def rows(folder: Path) -> pa.Table:
    return io.read_table(folder / "league.parquet", schemas.LEAGUE)


def test_every_model_has_the_same_budget_and_valid_chooses(league: tuple[Path, list[str]]) -> None:
    root, trained = league
    assert len(trained) == 3 * 2 * (BUDGET + 1) + 2 * BUDGET  # a closed form is the same for every seed
    every = rows(root / "benchmark/shop").to_pylist()
    for model, features in (("bpr", "none"), ("ease", "none"), ("vbpr", "f"), ("vbpr", "shuffled")):
        mine = [row for row in every if (row["model"], row["features"]) == (model, features)]
        assert len(mine) == 2 * (BUDGET + 1)  # on each split the tries, and one more seed
        for split in (0, 1):
            tries = [row for row in mine if row["split"] == split and row["seed"] == 0]
            (won,) = [row for row in tries if row["by_valid"]]
            assert won["valid"] == max(row["valid"] for row in tries)
        (published,) = [row for row in mine if row["by_test"]]
        assert published["recall"] == max(row["recall"] for row in mine if not row["split"] and not row["seed"])
    assert all(row["seconds"] > 0 and "cores" in row["machine"] for row in every)
    assert len({row["fingerprint"] for row in every}) == 2


def test_the_benchmark_has_the_figures_of_the_data_s_own_split(league: tuple[Path, list[str]]) -> None:
    made = league[0] / "benchmark/shop"
    standings, found = facts.standings(rows(made)), io.read_json(made / "league.json")
    assert standings[0].recall is not None
    assert (len(standings[0].recall.values), standings[0].tried) == (4, BUDGET)
    assert {row["a"] for row in found["gains"]} == {"vbpr on f"}
    main = [(one.recall.mean, one.published) for one in standings if one.features != "shuffled" and one.recall]
    assert found["stability"]["published"] == pytest.approx(kendalltau(*zip(*main, strict=True)).statistic)
    (comparison,) = comparisons(io.read_table(made / "results.parquet", schemas.RESULTS))
    assert {(row.model, row.features): row.cells["recall", 20].mean for row in comparison.rows} == {
        (one.model, one.features): one.own.mean for one in standings if one.own
    }


def test_the_report_shows_it(league: tuple[Path, list[str]]) -> None:
    with running("report", "shop", params(), league[0]) as run:
        report.main(run)
    page = (league[0] / "report/shop/index.html").read_text()
    section = page.partition('<section id="league">')[2].partition("<h2>")[2].partition("<h2>")[0]
    for words in ("published style", "honest", "Split audit", "joins models", "Holm", "tau", "lead"):
        assert words in section


def test_it_resumes_and_one_split_leaves_nothing_of_it(
    league: tuple[Path, list[str]], tmp_path: Path, trainings: list[str]
) -> None:
    root = shutil.copytree(league[0], tmp_path / "outputs")
    made = root / "benchmark/shop"
    before = {name: (made / name).read_bytes() for name in ("league.json", "results.parquet")}
    sorted((made / "cells").glob("*.json"))[3].unlink()  # a kill
    play(root, params())
    assert len(trainings) == 1
    assert {name: (made / name).read_bytes() for name in before} == before
    cells = len([*(made / "cells").glob("*.json")])
    play(root, params(benchmark={"splits": 1}))
    assert not (made / "league.parquet").exists()
    assert not [*made.glob("splits/*/*.parquet")]
    assert len([*(made / "cells").glob("*.json")]) < cells


def test_splits_are_the_same_rows_divided_otherwise(tmp_path: Path) -> None:
    layout = shop(tmp_path)
    own = season(tmp_path, benchmark={"splits": 3})
    read = [io.read_table(one.interactions, schemas.INTERACTIONS) for one in own.layouts]
    pairs = [sorted(zip(t["user_id"].to_pylist(), t["item_id"].to_pylist(), strict=True)) for t in read]
    assert pairs[0] == pairs[1] == pairs[2]
    assert len({rules.fingerprint for rules in own.rules}) == 3
    for split in own.splits:
        assert [np.bincount(part.users).tolist() for part in (split.train, split.valid, split.test)] == [
            [8] * shops.USERS, [1] * shops.USERS, [1] * shops.USERS
        ]  # fmt: skip
    assert own.layouts[0].interactions == layout.interactions
    assert len(season(tmp_path, interactions={"protocol": "user-time"}).splits) == 1
    (layout.interactions.parent / "draw-1.parquet").write_bytes(layout.interactions.read_bytes())
    drawn = Experiment(Run("benchmark", "shop", params(), tmp_path), 1, draws=layout.draws())
    with pytest.raises(UserError, match=r"benchmark\.splits.*shop has 2 draws"):
        plans.season(drawn)


def test_a_setting_is_of_the_authors_first_and_a_smaller_budget_begins_a_larger() -> None:
    grid = MODELS["l3ae"].Params.grid

    def settings(model: str, budget: int) -> list[dict[str, int | float]]:
        return plans.settings(params(benchmark={"budget": budget}), model)

    many = settings("l3ae", 9)
    assert len({tuple(one.items()) for one in many}) == 9
    assert all(value in grid[key] for one in many for key, value in one.items())
    assert settings("l3ae", 4) == many[:4]
    assert len(settings("ease", 9)) == 9  # six of the grid, three drawn from its range
    assert settings("contentknn", 9) == settings("l3ae", 0) == [{}]


def test_a_model_that_cannot_take_part_is_left_out_with_the_reason(tmp_path: Path) -> None:
    shops.outputs(tmp_path)

    def left_out(**benchmark: Any) -> dict[str, str]:
        return season(tmp_path, benchmark={"overrides": {"ease": {"gib": 1e-6}}, **benchmark}).left_out

    assert "50 items need 0.0 GiB" in left_out(features=["f"])["ease"]
    (tmp_path / "encode/shop").rename(tmp_path / "gone")
    assert left_out(models=["vbpr", "bpr"]) == {"vbpr": "vbpr reads features, and shop has none"}
    with pytest.raises(UserError, match="vbpr"):
        left_out(models=["vbpr"])


def test_a_model_that_diverges_is_left_out_and_the_others_play_on(tmp_path: Path, trainings: list[str]) -> None:
    shops.outputs(tmp_path)
    wild = {"search": {"spaces": {"bpr": {"lr": {"low": 1e29, "high": 1e30}}}}}
    one = {"features": ["f"], "budget": 1}
    made = play(tmp_path, params(**wild, benchmark=one | {"models": ["bpr", "ease"]}))
    found = io.read_json(made / "league.json")
    assert (list(found["ranks"]), "diverged in epoch" in found["left_out"]["bpr"]) == (["ease"], True)
    results = io.read_table(made / "results.parquet", schemas.RESULTS)
    assert {*results["model"].to_pylist()} == {"ease"}
    with pytest.raises(UserError, match="diverged"):
        play(tmp_path, params(**wild, benchmark=one | {"models": ["bpr"]}))


def test_a_set_that_learned_from_interactions_is_refused_on_several_splits(tmp_path: Path) -> None:
    layout = shop(tmp_path)
    (layout.root / "encode/shop/f").rename(layout.root / "encode/shop/chosen")
    with pytest.raises(UserError, match="chosen"):
        season(tmp_path, benchmark={"features": ["chosen"]}, encoders={"chosen": {"kind": "chosen"}})


def test_bars_join_neighbours_without_a_significant_difference() -> None:
    level = {frozenset(pair) for pair in ("ab", "bc", "de", "ce")}
    assert tables.groups("abcde", level) == [["a", "b"], ["b", "c"], ["d", "e"]]
    assert tables.groups("abc", set()) == []


def test_the_order_is_stable_where_all_agree_and_not_where_they_do_not() -> None:
    same = np.array([[[3, 2, 1], [6, 5, 4]], [[1, 0.5, 0], [3, 2, 1]]])
    assert tables.stability(same, [9, 8, 7]) == {"seeds": 1, "splits": 1, "published": 1}
    turned = np.array([[[3, 2, 1]], [[1, 3, 6]]])
    assert tables.stability(turned, [9, 8, 7]) == {"seeds": None, "splits": -1, "published": -1}


def test_an_audit_finds_repeats_leaks_and_cold_items() -> None:
    rows = [(0, 0, 0, 5), (0, 1, 0, 9), (0, 1, 2, 9), (0, 2, 2, 7), (1, 0, 0, 8), (1, 3, 2, 9), (2, 0, 2, 9)]
    users, items, parts, times = zip(*rows, strict=True)
    table = shops.interactions(list(zip(users, items, parts, strict=True)))
    timed = table.set_column(3, "timestamp", pa.array(times, pa.int64()))
    found = audit(timed, 5, 0)
    counts = ("repeated_pairs", "pairs_in_train_and_later", "cold_users", "cold_items")
    assert [found[key] for key in counts] == [1, 1, 1, 3]
    assert (found["cold_targets"], found["test_before_own_train"]) == (0.5, pytest.approx(1 / 3))
    assert found["train_after_first_test"] == pytest.approx(2 / 3)
    assert (found["popular_in_train"], found["popular_in_test"]) == (pytest.approx(2 / 3), 0.25)
    assert found["shift"] == pytest.approx(0.5)
    assert audit(table, 5, 0)["test_before_own_train"] is None
