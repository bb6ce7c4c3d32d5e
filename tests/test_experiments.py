"""Every experiment runs on a tiny catalogue and reports each of its arms."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import toy
import yaml
from typer import Typer
from typer.testing import CliRunner

TRAIN = {"features": "beit3", "dim": 8, "batch_size": 512, "epochs": 2, "lr": 0.01}
PARAMS: dict[str, Any] = {
    "datasets": ["shop"],
    "sources": {"shop": {"kind": "sample", "users": 120, "items": 40}},
    "pretrain": {"size": "small", "codes": 16, "steps": 2, "batch_size": 8, "distill_from": ["tfidf"]},
    "encode": {"encoders": ["tfidf"]},
    "beit3": {"sets": ["beit3", "beit3-raw"]},
    "combine": {"sets": {}},
    "train": TRAIN,
    "benchmark": {"workers": 1, "ks": [5, 20]},
}
EXPERIMENTS = {
    "clip": (["--steps", "2", "--seeds", "1"], ["| BEiT3, untrained |", "| CLIP, texts masked |"]),
    "exposure": (["--draws", "1", "--budget", "1", "--model", "bpr"], ["Gini"]),
    "geometry": (["--epochs", "1"], ["| nothing | 1 |", "| uia | 1 |"]),
    "joint": (
        ["--steps", "2", "--seeds", "1", "--rate", "0.1"],
        ["| staged, pre-trained |", "| joint, untrained, rate x"],
    ),
    "league": (["--model", "bpr", "--model", "vbpr", "--features", "beit3", "--seeds", "1", "--budget", "1"], ["tau"]),
    "mapped": (["--features", "beit3"], ["| beit3 |", "| beit3-mapped |"]),
    "single_pass": (["--steps", "0", "--seeds", "1"], ["| 0 |"]),
    "variants": (["--profile", "objective", "--steps", "2", "--seeds", "1"], ["| article, beit3-raw |"]),
    "wrong": (["--ratio", "1", "--features", "beit3"], ["| nothing |", "| image of 100% |", "| noise of 100% |"]),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the outputs of all stages up to graph."""
    from alignrec.commands.params import load

    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    params = load(folder / "params.yaml", "shop")
    before = ("download", "interactions", "items", "images", "encode", "pretrain", "beit3", "combine", "graph")
    for name in before:
        toy.run(name, params, folder / "outputs", item="tfidf" if name == "encode" else "")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs(shop: Path, name: str) -> None:
    options, said = EXPERIMENTS[name]
    app = Typer()
    app.command()(import_module(f"experiments.{name}").main)
    files = ["--params", str(shop / "params.yaml"), "--root", str(shop / "outputs")]
    done = CliRunner().invoke(app, ["shop", *files, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [words for words in said if words not in done.output] == []
