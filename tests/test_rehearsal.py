"""The rehearsal: files of the published layouts, and the profile on them from raw reviews to a verified release."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from benchmarks import _official, _rehearsal
from pipeline.beit3 import checkpoints, released, vqkd
from pipeline.beit3.config import SIZES
from pipeline.beit3.network import BEiT3
from pipeline.beit3.tokenizer import Tokenizer
from pipeline.config import document
from pipeline.layout import Layout
from pipeline.pretrain.losses import PretrainingModel
from pipeline.release import verify
from stages.order import STAGES

ROOT = Path(__file__).parent.parent
SMALL = SIZES["small"]


def nothing(address: str, target: Path) -> None:
    raise AssertionError(f"nothing should be fetched, {address} was")


# --- files as published


def test_weights_have_the_names_shapes_and_heads_of_the_published_ones(tmp_path: Path) -> None:
    _official.beit3(tmp_path / "beit3.pth", SMALL)
    path = tmp_path / "beit3.pth"
    tensors = checkpoints.read(path)
    shape = released.shape(tensors, "beit3.pth")
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


def test_the_tokenizer_has_as_many_pieces_and_splits_the_texts(tmp_path: Path) -> None:
    texts = ["a red apple", "a green apple", "two blue cars"] * 9
    _official.tokenizer(tmp_path / "beit3.spm", texts)
    tokenizer = Tokenizer((tmp_path / "beit3.spm").read_bytes())
    assert tokenizer.vocab == _official.PIECES + 2
    assert 0 <= SIZES["base"].vocab - tokenizer.vocab <= released.SPARE_PIECES
    (ids,) = tokenizer.encode(["a red apple"], 128)
    assert (ids[1:-1] > 3).all()
    assert ids.max() < 200  # of those that were learned


def test_the_visual_tokenizer_has_decoder_and_statistics_and_many_tokens(tmp_path: Path) -> None:
    _official.visual_tokenizer(tmp_path / "vqkd.pth", vqkd.Config(width=64, layers=1, heads=1))
    path = tmp_path / "vqkd.pth"
    network, loaded = released.load_vqkd(path, SMALL.grid)
    assert network.codes == 8192
    assert any(name.startswith("decoder.") for name in loaded.ignored)
    assert loaded.fresh == []
    images = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert len(network.tokens(images).unique()) > 10


def test_the_pages_gigabytes_are_computed_from_the_shapes() -> None:
    page = (ROOT / "docs/regenerate-baby.md").read_text()
    with torch.device("meta"):
        model = PretrainingModel(BEiT3(replace(SIZES["base"], codes=_official.CODES, mlm=True)), 64_002)
    trained = sum(t.numel() for t in model.state_dict().values())
    assert f"two checkpoints of {12 * trained / 1e9:.1f} GB" in page
    assert f"{16 * trained / 1e9:.1f} GB for weights, heads, gradients and two moments" in page


# --- the whole


def test_only_paths_and_scale_differ_from_the_profile() -> None:
    profile = document.read_extended(_rehearsal.PROFILE)
    changed = _rehearsal.parameters(profile, Path("raw"), "base", 300)
    different = {
        f"{section}.{key}"
        for section, values in changed.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if profile.get(section, {}).get(key) != value
    }
    paths = {"sources.baby", "pretrain.init", "pretrain.tokenizer", "pretrain.vqkd"}
    scale = {"pretrain.steps", "pretrain.batch_size", "pretrain.precision", "pretrain.checkpoint_every"}
    scale |= {"encode.workers", "train.epochs", "train.batch_size", "study.mask", "probe.ks"}
    scale |= {"benchmark.seeds", "benchmark.ablation_seeds", "benchmark.ks", "encoders.beit3"}
    assert different - {"encoders.beit3"} == paths | scale - {"encoders.beit3"}
    assert changed["pretrain"]["size"] == "base"
    assert changed["benchmark"]["models"] == profile["benchmark"]["models"]


def test_a_mistake_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^rehearsal: --items 9 .*; [^\n]*$"):  # which Python prints
        _rehearsal.main(["--items", "9"])


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
