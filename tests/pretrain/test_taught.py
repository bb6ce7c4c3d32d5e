"""The stage with a teacher: somebody's network, by a line under `encoders`."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import networks
import pytest
import yaml
from pretraining import command, digests, shop
from pretraining import history as run

from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.run import Run
from stages import STAGES
from stages.params import load


def taught(root: Path, way: str, kind: str = "timm", model: Path | None = None, **pretrain: Any) -> Layout:
    """Write a shop whose pre-training has a tiny teacher, unless `model` is another's folder."""
    model = model or networks.timm(root / "network")
    shop(root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["encoders"] = {"tiny": {"kind": kind, "model": str(model)}}
    params["pretrain"] |= {"visual_tokens": way, "teacher": "tiny", "vqkd_width": 64, "vqkd_layers": 1, "steps": 10}
    params["pretrain"] |= {"vqkd_epochs": 8, **pretrain}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return Layout(root, "toy")


def run_of(root: Path) -> Run:
    return Run("pretrain", "toy", load(root / "params.yaml"), root)


@pytest.mark.parametrize(
    ("way", "stop"), [("teacher-kmeans", "teacher-00000.npy"), ("teacher-vqkd", "vqkd.safetensors")]
)
def test_killed_it_ends_with_the_same_bytes(tmp_path: Path, way: str, stop: str) -> None:
    model = networks.timm(tmp_path / "network")
    whole, killed = (taught(tmp_path / name, way, model=model) for name in ("whole", "killed"))
    history = run(whole.root)
    process = subprocess.Popen(command(killed.root))
    while not (killed.encoder_scratch / stop).exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    run(killed.root)
    assert digests(killed.root) == digests(whole.root)
    assert not whole.encoder_scratch.exists()
    assert history[-1]["mim_accuracy"] is not None
    one, two = (json.loads(x.run_record("pretrain").read_text())["notes"]["visual_tokens"] for x in (whole, killed))
    assert one == two
    assert 1 < one["perplexity"] <= one["used"] <= one["codes"] <= 16
    assert (one["teacher"], one["kind"], one["model"]) == ("tiny", "timm", "network")
    assert ("cosine" in one) == (way == "teacher-vqkd")


def test_a_dataset_without_images_needs_no_lesson(tmp_path: Path) -> None:
    layout = taught(tmp_path, "teacher-vqkd")
    shop_params = (tmp_path / "params.yaml").read_text()
    shop(tmp_path, images=False)
    (tmp_path / "params.yaml").write_text(shop_params)
    assert run(tmp_path)[-1]["mim_accuracy"] is None
    assert not layout.visual_tokens.exists()


def test_its_network_and_settings_are_needs_where_it_is_read(tmp_path: Path) -> None:
    layout = taught(tmp_path, "teacher-kmeans")
    weights = tmp_path / "network" / "model.safetensors"
    files, facts, modules = STAGES["pretrain"].asks(run_of(tmp_path))
    assert weights in files
    assert "pipeline.encode.timm" in modules
    assert layout.items in files
    params = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("kind: timm", "kind: timm\n    precision: bfloat16"))
    assert STAGES["pretrain"].asks(run_of(tmp_path)).facts != facts
    (tmp_path / "params.yaml").write_text(params.replace("teacher-kmeans", "kmeans"))
    files, facts, modules = STAGES["pretrain"].asks(run_of(tmp_path))
    assert weights not in files
    assert (len(facts), modules) == (1, ["pipeline.pretrain.train"])


def test_a_teacher_of_texts_is_refused_before_the_work(tmp_path: Path) -> None:
    layout = taught(tmp_path, "teacher-kmeans", "huggingface", networks.bert(tmp_path / "bert"))
    with pytest.raises(UserError, match=r"^'pretrain\.teacher': tiny reads no images; take one that does"):
        run(tmp_path)
    assert not layout.encoder_scratch.exists()


def test_a_network_without_a_map_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models import VisionTransformer

    taught(tmp_path, "teacher-kmeans")
    monkeypatch.delattr(VisionTransformer, "forward_intermediates")
    with pytest.raises(UserError, match="VisionTransformer of timm gives no feature map"):
        run(tmp_path)
