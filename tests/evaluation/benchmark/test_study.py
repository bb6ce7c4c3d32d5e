"""The study on a shop of two tastes: masks, sweeps, which never open test, and the long tail."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from shop import tastes, toy
from shop.tastes import interactions

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.dataset import split
from alignrec.pipeline.evaluation.benchmark import slices, study
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel, Hidden, list_runs, rankings_path, train_and_judge
from alignrec.pipeline.evaluation.benchmark.experiment import Experiment
from alignrec.pipeline.evaluation.benchmark.params import Mask, Study
from alignrec.pipeline.evaluation.benchmark.settings import model_settings, protocol_of
from alignrec.pipeline.evaluation.benchmark.study import RECALL, MaskLabel
from alignrec.pipeline.evaluation.statistics import holm
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.models import MODELS, metrics
from alignrec.pipeline.models.alignrec import AlignRec
from alignrec.pipeline.models.metrics import evaluate_vectors, judge_rankings
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.models.training.loop import fit
from alignrec.pipeline.runtime import engine
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.run import Run, running
from alignrec.pipeline.runtime.section import validate
from alignrec.pipeline.runtime.seeds import seed_for
from alignrec.schemas import MODALITIES, variant

pytestmark = pytest.mark.usefixtures("one_process")
TRAIN = {"features": "f", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 0.01}


def params(rule: str) -> Params:
    return toy.params(
        train=TRAIN,
        graph={"k": 4},
        study={"mask": {"ratios": [0.5], "seeds": 2}, "workers": 1, "tail": False},
        benchmark={"protocol": rule},
    )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a shop whose feature set also exists with each modality masked."""
    layout = tastes.outputs(tmp_path)
    for n, modality in enumerate(MODALITIES, start=1):
        tastes.write_set(layout, variant("f", modality), tastes.content(n))
    return layout


def test_a_record_is_judged_by_the_protocol_that_it_names(layout: Layout) -> None:
    parts, recalls = tastes.two_tastes(), []
    for rule in ("mmrec", "strict"):
        settings = params(rule)
        rules = protocol_of(settings, "shop", parts)
        recall, record = measured(layout, settings, MaskLabel("f", "nothing", 0, 0), 5)
        seed = seed_for("benchmark", "shop", "alignrec", 0)
        fitted = fit(AlignRec, *inputs.read_inputs(layout, "f"), settings.train.resolved(), seed)
        expected = evaluate_vectors(fitted.user, fitted.item, parts, "test", [5], rules.seen_pairs(parts, "test"))
        assert recall == expected.mean["recall", 5]
        assert (record["protocol"], record["fingerprint"]) == (rule, rules.fingerprint)
        recalls.append(recall)
    assert recalls[1] > recalls[0]  # a valid item can no longer take a test item's place


def measured(layout: Layout, settings: Params, one: MaskLabel, k: int = 20) -> tuple[float, dict[str, Any]]:
    """Train; return test Recall@K and how it was judged."""
    experiment = Experiment(Run("study", "shop", settings, layout.root), 1)
    trained, _ = train_and_judge(study.mask_cell(experiment, one))
    (judged,) = trained["judged"]
    return judged["metrics"]["test"][f"recall@{k}"], judged


def studied(layout: Layout, **mask: object) -> pa.Table:
    """Run the stage; return table MASK."""
    settings = params("mmrec")
    if mask:
        changed = settings.study.model_copy(update={"mask": validate(Mask, mask)})
        settings = settings.model_copy(update={"study": changed})
    toy.run("study", settings, layout.root)
    return io.read_table(layout.study("mask"), schemas.MASK)


def test_the_whole_set_is_trained_once_and_ratios_share_their_runs(layout: Layout) -> None:
    few = studied(layout, ratios=[0.5, 0], seeds=1).to_pylist()
    assert [(row["modality"], row["ratio"]) for row in few] == [("nothing", 0.0), ("image", 0.5), ("text", 0.5)]
    before = {path: path.stat().st_mtime_ns for path in layout.cells("study").glob("*.json")}
    more = studied(layout, ratios=[0, 0.5, 1], seeds=1).to_pylist()
    assert [row for row in more if row["ratio"] < 1] == few
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())  # another ratio trains only itself
    none = params("mmrec").model_copy(update={"study": Study()})
    run = toy.run("study", none, layout.root)
    assert not list(run.folder.glob("**/*.parquet"))  # no table is named
    assert not layout.cells("study").exists()


def test_whole_sets_are_the_benchmarks_own_cells(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = params("mmrec")
    changed = settings.benchmark.model_copy(update={"models": ["alignrec"], "features": ["f"], "seeds": 2})
    whole = settings.model_copy(update={"benchmark": changed})
    toy.run("benchmark", whole, layout.root)
    trained: list[Any] = []
    monkeypatch.setattr(
        engine, "in_processes", lambda work, jobs, _: trained.extend(jobs) or ((j, work(j)) for j in jobs)
    )
    toy.run("study", whole, layout.root)
    rows = io.read_table(layout.study("mask"), schemas.MASK).to_pylist()
    assert len(trained) == len([row for row in rows if row["modality"] != "nothing"]) == 4
    results = io.read_table(layout.results, schemas.RESULTS).to_pylist()
    wanted = ("recall", 20, "test", 1)
    (recall,) = [r["value"] for r in results if (r["metric"], r["k"], r["split"], r["seed"]) == wanted]
    assert [row["recall@20"] for row in rows if (row["modality"], row["seed"]) == ("nothing", 1)] == [recall]


def test_all_hidden_is_the_masked_set_itself_and_none_hidden_the_whole(layout: Layout) -> None:
    settings = params("mmrec")
    trainings = [("f", "nothing", 0), ("f", "image", 0), ("f", "image", 1), ("f-image-masked", "nothing", 0)]
    whole, none, every, itself = (measured(layout, settings, MaskLabel(*one, 0))[0] for one in trainings)
    assert (whole, every) == (none, itself)


def test_what_is_masked_at_a_ratio_is_masked_at_every_larger_one() -> None:
    shares = [Hidden("image", ratio, 7).rows(50) for ratio in (0, 0.1, 0.2, 0.5, 1)]
    assert [int(rows.sum()) for rows in shares] == [0, 5, 10, 25, 50]
    assert all((larger[rows]).all() for rows, larger in itertools.pairwise(shares))


# --- sweeps


SWEEPS: dict[str, Any] = {
    "rate": {"train.lr": [0.001, 0.01]},
    "graph": {"graph.k": [2, 4], "train.item_layers": [0, 1]},
}
PARAMS = toy.params(train=TRAIN, graph={"k": 4}, study={"sweeps": SWEEPS, "seeds": 2})


def sweeping(root: Path) -> Experiment:
    return Experiment(Run("study", "shop", PARAMS, root), 1)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A shop whose two sweeps have been run."""
    root = tastes.outputs(tmp_path_factory.mktemp("shop")).root
    made = sweeping(root)
    made.write(study.sweep_tables(made))
    made.end()
    return Layout(root, "shop", ("study", ""))


def rows(swept: Layout) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = io.read_table(swept.study("sweeps"), schemas.SWEEPS).to_pylist()
    return table


def values(swept: Layout, sweep: str, **setting: float) -> list[float]:
    """Return valid Recall@20 by seed."""
    wanted = sweep, json.dumps({key.replace("_", ".", 1): value for key, value in setting.items()})
    return [row[RECALL] for row in rows(swept) if (row["sweep"], row["setting"]) == wanted]


def test_every_setting_has_its_seeds_and_equal_trainings_run_once(swept: Layout) -> None:
    assert [(row["sweep"], row["setting"], row["seed"]) for row in rows(swept)] == [
        (sweep, json.dumps(setting), seed)
        for sweep, settings in (
            ("rate", [{"train.lr": 0.001}, {"train.lr": 0.01}]),
            ("graph", [{"graph.k": k, "train.item_layers": n} for k in (2, 4) for n in (0, 1)]),
        )
        for setting in settings
        for seed in (0, 1)
    ]
    assert len([*swept.cells("study").glob("*.json")]) == 2 * 5  # of six: the given setting is in both
    assert values(swept, "rate", train_lr=0.01) == values(swept, "graph", graph_k=4, train_item_layers=1)


def test_valid_is_that_of_the_setting_and_its_graph(swept: Layout) -> None:
    data = inputs.read_inputs(swept, "f")
    edges, seed = neighbours.find_neighbours(tastes.content(), 2), seed_for("sweep", "shop", "alignrec", 1)
    settings = model_settings(PARAMS, "alignrec")
    fitted = fit(MODELS["alignrec"], data.split, data.features, edges, settings, seed)
    assert values(swept, "graph", graph_k=2, train_item_layers=1)[1] == pytest.approx(fitted.valid[RECALL], abs=1e-12)
    assert {row["fingerprint"] for row in rows(swept)} == {protocol_of(PARAMS, "shop", data.split).fingerprint}


def test_test_stays_closed(swept: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "evaluate_vectors", lambda *_: pytest.fail("test is opened"))
    cell = study.sweep_cell(sweeping(swept.root), {"train.lr": 0.01}, 0, "study.sweeps.x")
    record, _ = train_and_judge(cell, tolerant=True)
    assert record["best"][f"valid_{RECALL}"] == values(swept, "rate", train_lr=0.01)[0]


def test_one_key_is_a_curve_and_two_are_a_map(swept: Layout) -> None:
    curves, maps = (io.read_json(swept.study_plot(name)) for name in ("curves", "heatmaps"))
    points = [("rate", "train.lr", 0.001, 2), ("rate", "train.lr", 0.01, 2)]
    assert [(p["sweep"], p["key"], p["value"], p["seeds"]) for p in curves] == points
    by_seed = values(swept, "rate", train_lr=0.001)
    assert (curves[0][RECALL], curves[0]["sd"]) == (np.mean(by_seed), np.std(by_seed, ddof=1))
    assert {(p["map"], p["x"], p["y"]) for p in maps} == {
        ("study alignrec graph: graph.k, train.item_layers", k, n) for k in ("2", "4") for n in ("0", "1")
    }
    found = next(p for p in maps if (p["x"], p["y"]) == ("2", "0"))
    assert found["valid"] == np.mean(values(swept, "graph", graph_k=2, train_item_layers=0))


# --- the long tail, on figures whose groups are obvious


SETTINGS = toy.params(train={"features": "f"}, benchmark={"ks": [5, 20], "seeds": 2}, study={"tail": True})


def written(root: Path, right: dict[tuple[str, str], set[int]]) -> pa.Table:
    """Write a benchmark where a contender ranks the target first for the numbered users; return table TAIL."""
    layout, parts = tastes.outputs(root), tastes.two_tastes()
    users = np.unique(parts.test.users)
    keys = {CellLabel(*name, seed): f"{n}{seed}" for n, name in enumerate(right) for seed in range(2)}
    io.write_json(layout.runs, list_runs(keys))
    for entry in keys:
        served = right[entry.model, entry.features]
        top = np.full((len(users), 20), -1, np.int32)
        top[:, 0] = [t if u in served and not entry.seed else -1 for u, t in zip(users, parts.test.items, strict=True)]
        lists = pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), type=schemas.rankings(20).field("items").type)
        ranked = pa.table({"user_id": users, "items": lists})
        io.write_table(ranked, rankings_path(layout, entry), schemas.rankings(20))
    return tabled(root, SETTINGS)


def tabled(root: Path, settings: Params) -> pa.Table:
    with running("study", "shop", settings, root) as run:
        experiment = Experiment(run, 1)
        experiment.write(slices.tail_tables(experiment))
    return io.read_table(run.layout.study("tail"), schemas.TAIL)


def test_a_group_has_the_mean_of_its_members_over_seeds_and_is_tested_in_pairs(tmp_path: Path) -> None:
    everybody, nobody = set(range(tastes.USERS)), set()
    rows = written(
        tmp_path, {("alignrec", "f"): everybody, ("bpr", "none"): nobody, ("alignrec", "random"): everybody}
    ).to_pylist()
    (history,) = {row["label"] for row in rows if row["slice"] == "history"}
    assert history == "6-9"  # eight train interactions each
    ours, bpr, equal = (row for row in rows if row["slice"] == "history")
    assert (ours["mean"], ours["mean_low"], ours["mean_high"], ours["seeds"], ours["n"]) == (0.5, 0.5, 0.5, 2, 60)
    assert ours["difference"] is None
    assert (bpr["difference"], bpr["low"], bpr["high"], bpr["p"]) == (0.5, 0.5, 0.5, 0.0001)
    assert (equal["difference"], equal["p_holm"]) == (0.0, 1.0)
    of_popularity = [row for row in rows if row["slice"] == "popularity" and row["model"] == "bpr"]
    assert [row["label"] for row in of_popularity] == ["tail", "middle", "head"]  # sixty targets are thin in tenths
    assert sum(row["n"] for row in of_popularity) == 60
    tested = [row for row in rows if row["p"] is not None]
    assert [row["p_holm"] for row in tested] == list(holm(np.array([row["p"] for row in tested])))
    assert len(tested) == 2 * 4


def test_targets_are_grouped_by_their_own_items_popularity(tmp_path: Path) -> None:
    parts = tastes.two_tastes()
    counts = np.bincount(parts.train.items, minlength=tastes.ITEMS)
    popular = {
        int(u) for u, i in zip(parts.test.users, parts.test.items, strict=True) if counts[i] >= np.median(counts)
    }
    rows = written(tmp_path, {("alignrec", "f"): popular}).to_pylist()
    mean = {row["label"]: row["mean"] for row in rows if row["slice"] == "popularity"}
    assert mean["tail"] == 0
    assert mean["head"] == 0.5
    assert all(row["difference"] is None and row["p_holm"] is None for row in rows)  # nothing to compare with
    study = SETTINGS.study.model_copy(update={"tail": False})
    assert len(tabled(tmp_path, SETTINGS.model_copy(update={"study": study}))) == 0


# --- slices of a shop that is small enough to count by hand


# user 0 has three train items, user 1 four; item 3 has no train interaction, item 4 only user 1's
ROWS = [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0), (1, 4, 0), (0, 4, 2), (1, 3, 2), (1, 5, 2)]
TOP = np.array([[4, 3], [0, 3]], np.int32)
KS = (1, 2)


@pytest.fixture
def figures() -> dict[tuple[str, str, str, int], slices.SliceFigure]:
    parts = split.load_split(interactions(ROWS), 2, 6)
    judged = judge_rankings(TOP, np.array([0, 1], np.int32), parts.test, 6, KS)
    return {(f.slice, f.label, f.metric, f.k): f for f in slices.slice_figures(judged, parts, KS)}


def test_users_by_length_of_history(figures: dict[tuple[str, str, str, int], slices.SliceFigure]) -> None:
    assert figures["history", "3", "recall", 1][2:] == (1, "recall", 1, 1.0)
    assert figures["history", "4-5", "recall", 2].value == 0.5
    assert figures["history", "20+", "ndcg", 1][2:] == (0, "ndcg", 1, None)
    users = sum(f.n for key, f in figures.items() if key[0] == "history" and key[2:] == ("recall", 1))
    assert users == 2


def test_items_by_popularity_and_cold_ones(figures: dict[tuple[str, str, str, int], slices.SliceFigure]) -> None:
    assert figures["popularity", "cold", "recall", 2][2:] == (2, "recall", 2, 0.5)  # 3 was hit, 5 was not
    assert figures["popularity", "1", "recall", 1][2:] == (1, "recall", 1, 1.0)  # item 4, the least popular known one


def test_every_tenth_has_as_many_items() -> None:
    rows = [(user, item, 0) for item in range(20) for user in range(item + 1)] + [(0, 20, 2)]
    parts = slices.popularity_parts(split.load_split(interactions(rows), 20, 21))
    assert parts.tolist() == [*np.repeat(np.arange(1, 11), 2), 0]
