"""Runs of the benchmark: what is trained, once each, how they resume, and cold items under both protocols."""

from pathlib import Path

import numpy as np
import pytest
from shop import cold, tastes, toy
from shop.tastes import ITEMS, two_tastes

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.cell import CellLabel, rankings_path, read_runs
from alignrec.pipeline.evaluation.benchmark.plan import list_labels
from alignrec.pipeline.evaluation.evidence import list_comparisons
from alignrec.pipeline.models.metrics import judge_rankings
from alignrec.pipeline.models.training import inputs
from alignrec.pipeline.report import results as tables
from alignrec.pipeline.runtime.layout import Layout

pytestmark = pytest.mark.usefixtures("one_process")


def test_id_models_run_once_a_seed_and_ablations_beside_the_full_model() -> None:
    benchmark = {"models": ["alignrec", "bpr"], "features": ["a", "b"], "seeds": 2}
    runs = (("alignrec", "a"), ("alignrec", "b"), ("bpr", "none"))
    plain = [CellLabel(model, features, seed) for model, features in runs for seed in (0, 1)]
    assert list_labels(toy.params(benchmark=benchmark, train={"features": "a"})) == plain
    rows = {"no-cca": {"cca": 0.0}, "image-only": {"features": "c"}}
    assert list_labels(toy.params(benchmark=benchmark | {"ablations": rows}, train={"features": "d"})) == [
        *plain,
        CellLabel("alignrec", "d", 0),
        CellLabel("alignrec", "d", 1),
        CellLabel("alignrec", "d", 0, "no-cca"),
        CellLabel("alignrec", "c", 0, "image-only"),
    ]


def run_all(root: Path, models: list[str]) -> dict[str, bytes]:
    tastes.outputs(root)
    ablations = {"ablations": {"no-cca": {"cca": 0.0}}} if "alignrec" in models else {}
    params = toy.params(
        train={"features": "f", "dim": 8, "batch_size": 64, "epochs": 3, "lr": 0.01},
        benchmark={"models": models, "features": ["f"], "seeds": 2, "ks": [5, 20], "workers": 2} | ablations,
    )
    return tastes.benchmark(root, params)


def test_an_interrupted_benchmark_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole = run_all(tmp_path, ["bpr", "alignrec"])
    layout = Layout(tmp_path, "shop")
    untouched = rankings_path(layout, CellLabel("bpr", "none", 0)).with_suffix(".json")
    before = untouched.stat().st_mtime_ns
    rankings_path(layout, CellLabel("alignrec", "f", 1)).with_suffix(".json").unlink()
    layout.results.unlink()
    assert run_all(tmp_path, ["bpr", "alignrec"]) == whole
    assert untouched.stat().st_mtime_ns == before

    record = io.read_json(untouched)
    rankings = io.read_table(rankings_path(layout, CellLabel("bpr", "none", 0)), schemas.rankings(20))
    top = np.array(rankings["items"].to_pylist(), np.int32)
    judged = judge_rankings(top, rankings["user_id"].to_numpy(), two_tastes().test, ITEMS, [5, 20]).mean
    assert record["judged"][0]["metrics"]["test"]["ndcg@5"] == judged["ndcg", 5]  # figures are of the rankings

    tests = io.read_table(layout.tests, schemas.TESTS).to_pylist()
    assert {(t["model_a"], t["model_b"], t["ablation_b"], t["seeds"]) for t in tests} == {
        ("alignrec", "bpr", "", 2),
        ("alignrec", "alignrec", "no-cca", 1),
    }
    results = io.read_table(layout.results, schemas.RESULTS)
    assert set(results["fingerprint"].to_pylist()) == {p["fingerprint"] for p in io.read_json(layout.protocol)}
    slices = io.read_table(layout.slices, schemas.SLICES)
    assert set(slices["ablation"].to_pylist()) == {"", "no-cca"}

    fewer = run_all(tmp_path, ["bpr"])
    assert not len(io.read_table(layout.tests, schemas.TESTS))
    assert {entry.model for entry in read_runs(layout)} == {"bpr"}
    assert len([name for name in fewer if name.startswith("cells/") and name.endswith(".json")]) == 2


def test_a_closed_form_is_trained_once_for_all_seeds_and_a_network_for_each(tmp_path: Path) -> None:
    made = run_all(tmp_path, ["ease", "bpr"])
    assert len([name for name in made if name.startswith("cells/") and name.endswith(".json")]) == 1 + 2
    layout = Layout(tmp_path, "shop")
    results = io.read_table(layout.results, schemas.RESULTS).to_pylist()
    assert {row["seed"] for row in results if row["model"] == "ease"} == {0, 1}


# --- cold items


ALONE, EVERY = "mmrec, cold-items 0.4, cold items alone", "mmrec, cold-items 0.4, all items"


def test_each_result_stands_there_under_both_protocols(tmp_path: Path) -> None:
    layout = cold.outputs(tmp_path)
    tastes.benchmark(tmp_path, cold.params())
    results = io.read_table(layout.results, schemas.RESULTS)
    runs = [(c.protocol, r) for c in list_comparisons(results) for r in c.rows]
    recall = {(protocol, r.model, r.features): r.cells["recall", 20].mean for protocol, r in runs}
    both = {p: {run[1:]: value for run, value in recall.items() if run[0] == p} for p in (ALONE, EVERY)}
    assert set(both[ALONE]) == set(both[EVERY]) == {("bpr", "none"), ("contentknn", "f"), ("contentknn", "noise")}
    assert len(recall) == 6
    # 13 of the 26 candidates are of the user's taste, and three of these are the targets
    assert both[ALONE]["contentknn", "f"] > 0.95
    assert 0.6 < both[ALONE]["contentknn", "noise"] < 0.9  # by chance 20 of 26
    assert both[EVERY]["contentknn", "f"] > 2 * both[EVERY]["bpr", "none"]
    for seed in range(2):
        record = io.read_json(rankings_path(layout, CellLabel("bpr", "none", seed)).with_suffix(".json"))
        assert [one["protocol"] for one in record["judged"]] == [ALONE, EVERY]


def test_runs_take_the_draws_in_turn_and_tests_resample_them(tmp_path: Path) -> None:
    layout = cold.outputs(tmp_path)
    cold.draw_again(layout)
    named = {"models": ["contentknn", "bpr"], "features": ["f", "noise"], "control": "noise", "seeds": 1}
    settings = cold.params(benchmark=named | {"ks": [5, 20], "workers": 1})
    tastes.benchmark(layout.root, settings)
    name, every = (protocol.replace("0.4", "0.4 in 2 draws") for protocol in (ALONE, EVERY))
    assert [p["name"] for p in io.read_json(layout.protocol)] == [name, every]
    for draw, own in enumerate(layout.draws()):
        ranked = io.read_table(rankings_path(layout, CellLabel("bpr", "none", draw)), schemas.rankings(20))
        candidates = inputs.read_inputs(own, None).split.cold_items("test")
        assert {*ranked["items"].combine_chunks().flatten().to_pylist()} <= {*candidates.tolist()}
    found = list_comparisons(io.read_table(layout.results, schemas.RESULTS))
    assert "Runs take the 2 draws in turn" in tables.results_table(found[0]).note
    rows = [row for c in found if c.protocol == name for row in c.rows]
    figures = {row.features: row.cells["recall", 20] for row in rows if row.model == "contentknn"}
    assert len({*figures["noise"].values}) == 2  # nothing but the draw moves it
    tests = [row for row in io.read_table(layout.tests, schemas.TESTS).to_pylist() if row["protocol"] == name]
    paired = {row["features_a"]: row for row in tests if (row["model_a"], row["metric"]) == ("contentknn", "recall")}
    for features, row in paired.items():
        assert row["difference"] == pytest.approx(figures[features].mean - figures["noise"].mean)  # over draws
