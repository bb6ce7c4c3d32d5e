"""Cold items in the benchmark, probe and report, under both protocols."""

from dataclasses import replace
from pathlib import Path

import cold
import numpy as np
import pytest
import shops

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.cell import Entry, rankings_path
from alignrec.pipeline.evaluation.evidence import list_comparisons
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.report import results
from alignrec.pipeline.train import inputs

pytestmark = pytest.mark.usefixtures("one_process")

ALONE, EVERY = "mmrec, cold-items 0.4, cold items alone", "mmrec, cold-items 0.4, all items"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = cold.outputs(tmp_path_factory.mktemp("cold"))
    shops.benchmark(layout.root, cold.params())
    return layout


def test_each_result_stands_there_under_both_protocols(layout: Layout) -> None:
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
        record = io.read_json(rankings_path(layout, Entry("bpr", "none", seed)).with_suffix(".json"))
        assert [one["protocol"] for one in record["judged"]] == [ALONE, EVERY]


def test_runs_take_the_draws_in_turn_and_tests_resample_them(tmp_path: Path) -> None:
    layout = cold.outputs(tmp_path)
    cold.draw_again(layout)
    named = {"models": ["contentknn", "bpr"], "features": ["f", "noise", "mapped"], "control": "noise", "seeds": 1}
    settings = cold.params(benchmark=named | {"ks": [5, 20], "workers": 1}, **cold.LEARNING)
    shops.benchmark(layout.root, settings)
    name, every = (protocol.replace("0.4", "0.4 in 2 draws") for protocol in (ALONE, EVERY))
    assert [p["name"] for p in io.read_json(layout.protocol)] == [name, every]
    for draw, own in enumerate(layout.draws()):
        ranked = io.read_table(rankings_path(layout, Entry("bpr", "none", draw)), schemas.rankings(20))
        candidates = inputs.read_inputs(own, None).split.cold_items("test")
        assert {*ranked["items"].combine_chunks().flatten().to_pylist()} <= {*candidates.tolist()}
    found = list_comparisons(io.read_table(layout.results, schemas.RESULTS))
    assert "Runs take the 2 draws in turn" in results.results_table(found[0]).note
    rows = [row for c in found if c.protocol == name for row in c.rows]
    figures = {row.features: row.cells["recall", 20] for row in rows if row.model == "contentknn"}
    assert len({*figures["noise"].values}) == 2  # nothing but the draw moves it
    tests = [row for row in io.read_table(layout.tests, schemas.TESTS).to_pylist() if row["protocol"] == name]
    paired = {row["features_a"]: row for row in tests if (row["model_a"], row["metric"]) == ("contentknn", "recall")}
    for features, row in paired.items():
        assert row["difference"] == pytest.approx(figures[features].mean - figures["noise"].mean)  # over draws
    again = np.load(layout.folder("benchmark") / "draws" / "1" / "mapped.npy")
    np.testing.assert_array_equal(again, cold.learned(replace(layout, drawn=1)))
    assert np.abs(again - cold.learned(layout)).max() > 0.01


def test_a_set_that_learned_from_the_first_draw_and_cannot_again_is_refused(tmp_path: Path) -> None:
    layout = cold.outputs(tmp_path)
    cold.draw_again(layout)
    named = {"models": ["contentknn"], "features": ["twice"], "ks": [5, 20], "workers": 1}
    cold.write_set(layout, "twice", cold.content())
    sets = {**cold.LEARNING["combine"]["sets"], "twice": {"kind": "mapped", "of": "mapped"}}
    settings = cold.params(benchmark=named, combine={"sets": sets, "controls": []})
    with pytest.raises(UserError, match="twice learned from the train interactions of the first draw"):
        shops.benchmark(layout.root, settings)
