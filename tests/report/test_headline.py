"""What DVC shows of a run and git keeps: figures of its tables, and the article's tables; others stay as they were."""

import shutil
from pathlib import Path

import pyarrow as pa
import toy

import schemas
from pipeline import io
from pipeline.layout import Layout
from pipeline.report import figures
from pipeline.report.outputs import Outputs

EMPTY = {"pretrain", "train", "mask", "curves", "heatmaps"}


def test_metrics_are_the_released_models_its_rivals_and_what_came_before(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    history = [{"epoch": 1, "mim_accuracy": 0.12345, "mlm_accuracy": None}]  # of a dataset without texts
    io.write_json(layout.history("pretrain"), history)
    figures.write(Outputs(layout, released="beit3"), "alignrec")
    assert io.read_json(layout.figures("metrics")) == {
        "valid": 0.11, "recall@20": 0.31, "sd": 0.01, "ndcg@20": 0.31, "baseline": 0.21, "zero_shot": 0.4,
        "mim": 0.1235,
    }  # fmt: skip
    assert io.read_json(layout.figures("pretrain")) == history
    assert io.read_json(layout.figures("train")) == io.read_json(layout.history("train"))


def test_the_control_is_the_same_model_on_features_that_say_nothing(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    figures.write(Outputs(layout, released="none"), "lightgcn")
    assert "control" not in io.read_json(layout.figures("metrics"))
    results = io.read_table(layout.results, schemas.RESULTS)
    features = ["random" if name == "none" else name for name in results["features"].to_pylist()]
    models = ["alignrec"] * len(results)
    table = results.set_column(results.schema.get_field_index("features"), "features", [features])
    table = table.set_column(table.schema.get_field_index("model"), "model", [models])
    io.write_table(table, layout.results, schemas.RESULTS)
    figures.write(Outputs(layout, released="beit3"), "alignrec")
    metrics = io.read_json(layout.figures("metrics"))
    assert (metrics["recall@20"], metrics["control"]) == (0.31, 0.21)
    assert "baseline" not in metrics


def test_parts_that_did_not_run_are_empty_files_so_that_dvc_finds_every_plot(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for stage in ("pretrain", "train", "probe", "benchmark", "study"):
        shutil.rmtree(layout.folder(stage))
    figures.write(Outputs(layout, released="beit3"), "alignrec")
    assert {part: io.read_json(layout.figures(part)) for part in EMPTY} == {part: [] for part in EMPTY}
    assert io.read_json(layout.figures("metrics")) == {}


def test_a_largest_cutoff_below_the_usual_one_names_its_figures(tmp_path: Path) -> None:
    layout: Layout = toy.outputs(tmp_path)
    results = io.read_table(layout.results, schemas.RESULTS)
    table = results.filter([k == 10 for k in results["k"].to_pylist()])
    io.write_table(table, layout.results, schemas.RESULTS)
    figures.write(Outputs(layout, released="beit3"), "alignrec")
    assert {"recall@10", "ndcg@10"} <= io.read_json(layout.figures("metrics")).keys()


def test_a_part_that_did_not_run_leaves_what_git_has_of_an_earlier_run(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    shutil.rmtree(layout.folder("study"))
    io.write_json(layout.figures("article-mask"), [{"note": "of its own run"}])
    io.write_json(layout.figures("article-ablation"), [{"note": "earlier"}])
    figures.write(Outputs(layout, released="beit3"), "alignrec")
    assert io.read_json(layout.figures("article-mask")) == [{"note": "of its own run"}]
    (table,) = io.read_json(layout.figures("article-ablation"))
    assert table["head"][0] == "ablation"
    assert table["rows"]


def test_the_tail_is_kept_as_leads_without_controls(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    row = {
        "dataset": "shop", "protocol": "mmrec", "fingerprint": "f", "slice": "popularity", "label": "1", "n": 50,
        "k": 20, "model": "bpr", "features": "none", "seeds": 3, "mean": 0.1, "mean_low": 0.05, "mean_high": 0.15,
        "difference": 0.0312, "low": 0.01, "high": 0.05, "p": 0.001, "p_holm": 0.002,
    }  # fmt: skip
    rows = [row, row | {"label": "2", "difference": -0.001, "low": -0.1, "high": 0.1, "p": 0.8, "p_holm": 0.8}]
    rows += [row | {"features": "random", "model": "alignrec"}]
    table = pa.Table.from_pylist(rows, schemas.STUDY["tail"])
    io.write_table(table, layout.study("tail"), schemas.STUDY["tail"])
    (leads,) = figures.article(Outputs(layout, released="beit3"))["tail"]
    assert leads.head == ["run", "1", "2"]
    assert leads.rows == [["n", "50", "50"], ["BPR", "+0.0312 (+0.0100 .. +0.0500)", "-0.0010 (-0.1000 .. +0.1000)"]]
