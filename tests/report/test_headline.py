"""What DVC shows of a run are the figures of its tables, and a part that did not run has none."""

import shutil
from pathlib import Path

import toy

import schemas
from pipeline import io
from pipeline.layout import Layout
from pipeline.report import headline
from pipeline.report.outputs import Outputs

EMPTY = {"pretrain", "train", "mask", "curves", "heatmaps"}


def test_metrics_are_the_released_models_its_rivals_and_what_came_before(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    history = [{"epoch": 1, "mim_accuracy": 0.12345, "mlm_accuracy": None}]  # of a dataset without texts
    io.write_json(layout.history("pretrain"), history)
    headline.write(Outputs(layout, released="beit3"), "alignrec")
    assert io.read_json(layout.figures("metrics")) == {
        "valid": 0.11, "recall@20": 0.31, "sd": 0.01, "ndcg@20": 0.31, "baseline": 0.21, "zero_shot": 0.4,
        "mim": 0.1235,
    }  # fmt: skip
    assert io.read_json(layout.figures("pretrain")) == history
    assert io.read_json(layout.figures("train")) == io.read_json(layout.history("train"))


def test_the_control_is_the_same_model_on_features_that_say_nothing(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    headline.write(Outputs(layout, released="none"), "lightgcn")
    assert "control" not in io.read_json(layout.figures("metrics"))
    results = io.read_table(layout.results, schemas.RESULTS)
    features = ["random" if name == "none" else name for name in results["features"].to_pylist()]
    models = ["alignrec"] * len(results)
    table = results.set_column(results.schema.get_field_index("features"), "features", [features])
    table = table.set_column(table.schema.get_field_index("model"), "model", [models])
    io.write_table(table, layout.results, schemas.RESULTS)
    headline.write(Outputs(layout, released="beit3"), "alignrec")
    metrics = io.read_json(layout.figures("metrics"))
    assert (metrics["recall@20"], metrics["control"]) == (0.31, 0.21)
    assert "baseline" not in metrics


def test_parts_that_did_not_run_are_empty_files_so_that_dvc_finds_every_plot(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for stage in ("pretrain", "train", "probe", "benchmark", "study"):
        shutil.rmtree(layout.folder(stage))
    headline.write(Outputs(layout, released="beit3"), "alignrec")
    assert {part: io.read_json(layout.figures(part)) for part in EMPTY} == {part: [] for part in EMPTY}
    assert io.read_json(layout.figures("metrics")) == {}


def test_a_largest_cutoff_below_the_usual_one_names_its_figures(tmp_path: Path) -> None:
    layout: Layout = toy.outputs(tmp_path)
    results = io.read_table(layout.results, schemas.RESULTS)
    table = results.filter([k == 10 for k in results["k"].to_pylist()])
    io.write_table(table, layout.results, schemas.RESULTS)
    headline.write(Outputs(layout, released="beit3"), "alignrec")
    assert {"recall@10", "ndcg@10"} <= io.read_json(layout.figures("metrics")).keys()
