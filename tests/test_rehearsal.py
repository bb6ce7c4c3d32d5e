"""The rehearsal: imitations of the published files, and the profile on them, from raw reviews to a verified release."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from alignrec.pipeline.beit3 import checkpoints, released
from alignrec.pipeline.beit3.config import SIZES
from alignrec.pipeline.beit3.network import BEiT3
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.release.read import verify
from alignrec.stages.order import STAGES
from benchmarks import _official, _rehearsal

SMALL = SIZES["small"]


# --- files as published


def test_weights_have_the_names_shapes_and_heads_of_the_published_ones(tmp_path: Path) -> None:
    _official.beit3(tmp_path / "beit3.pth", SMALL)
    path = tmp_path / "beit3.pth"
    tensors = checkpoints.read_weights(path)
    shape = released.published_shape(tensors, "beit3.pth")
    assert (shape.vocab, shape.positions, shape.codes, shape.mlm) == (64_010, 1024, 8192, True)
    with torch.device("meta"):
        network = BEiT3(shape)
    assert {name: t.shape for name, t in tensors.items()} == {name: t.shape for name, t in network.state_dict().items()}
    scales = torch.cat([t for name, t in tensors.items() if t.ndim == 1 and "layer_norm.A.weight" in name])
    assert abs(float(scales.mean()) - 1) < 0.01
    _official.beit3(tmp_path / "again.pth", SMALL)
    assert (tmp_path / "again.pth").stat().st_size == (tmp_path / "beit3.pth").stat().st_size
    again = checkpoints.read_checkpoint(tmp_path / "again.pth")
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())


# --- the whole


@pytest.mark.slow
@pytest.mark.skipif("REHEARSAL" not in os.environ, reason="takes minutes; set REHEARSAL=1")
def test_the_profile_runs_from_raw_files_and_published_weights_to_a_verified_release(tmp_path: Path) -> None:
    figures = _rehearsal.rehearse(tmp_path, "small", 60)
    layout = Layout(tmp_path / "outputs", "baby")
    assert list(figures["stages"]) == list(STAGES)
    assert len(list(verify(layout.release))) > 1
    with safe_open(layout.encoder.weights, "pt") as file:
        assert file.get_slice("beit3.text_embed.weight").get_shape() == [64_010, SMALL.width]
    assert json.loads(layout.run_record("pretrain").read_text())["notes"]["init"] == []  # both heads went on too
    assert {p.name for p in (layout.release / "features").iterdir()} >= {"beit3-raw", "beit3-official", "minilm-cnn"}
    sets = set(json.loads(layout.metrics.read_text())["alignrec"])
    assert sets >= {"beit3-raw", "minilm-cnn4096", "random", "shuffled", "constant", "beit3-raw, frozen"}
    text = "\n".join(_rehearsal.lines(figures))
    assert "from dvc repro to a verified release" in text
    assert all(stage in text for stage in STAGES)
