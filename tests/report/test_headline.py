"""Figures for DVC and git: headline figures and tables; those of other runs are kept."""

import shutil
from pathlib import Path

import toy

from alignrec.pipeline import io
from alignrec.pipeline.report import figures
from alignrec.pipeline.report.outputs import Outputs

EMPTY = {"pretrain", "train", "mask", "curves", "heatmaps"}


def test_metrics_are_the_released_models_its_rivals_and_what_came_before(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    history = [{"epoch": 1, "mim_accuracy": 0.12345, "mlm_accuracy": None}]  # of a dataset without texts
    io.write_json(layout.history("pretrain"), history)
    figures.write_figures(Outputs(layout, released="beit3"), "alignrec")
    assert io.read_json(layout.figures("metrics")) == {
        "valid": 0.11, "recall@20": 0.31, "sd": 0.01, "ndcg@20": 0.31, "baseline": 0.21, "zero_shot": 0.4,
        "mim": 0.1235,
    }  # fmt: skip
    assert io.read_json(layout.figures("pretrain")) == history
    assert io.read_json(layout.figures("train")) == io.read_json(layout.history("train"))


def test_parts_that_did_not_run_are_empty_files_so_that_dvc_finds_every_plot(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    for stage in ("pretrain", "train", "probe", "benchmark", "study"):
        shutil.rmtree(layout.folder(stage))
    figures.write_figures(Outputs(layout, released="beit3"), "alignrec")
    assert {part: io.read_json(layout.figures(part)) for part in EMPTY} == {part: [] for part in EMPTY}
    assert io.read_json(layout.figures("metrics")) == {}


def test_a_part_that_did_not_run_leaves_what_git_has_of_an_earlier_run(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    shutil.rmtree(layout.folder("study"))
    io.write_json(layout.figures("article-mask"), [{"note": "of its own run"}])
    io.write_json(layout.figures("article-ablation"), [{"note": "earlier"}])
    figures.write_figures(Outputs(layout, released="beit3"), "alignrec")
    assert io.read_json(layout.figures("article-mask")) == [{"note": "of its own run"}]
    (table,) = io.read_json(layout.figures("article-ablation"))
    assert table["head"][0] == "ablation"
    assert table["rows"]
