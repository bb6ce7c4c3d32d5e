"""CLIP trained here: on pairs alone, learning them, the same after a kill, its weights named by its features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import featured
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toy
from featured import vectors
from safetensors.torch import load

import schemas
from pipeline import io
from pipeline.encode import clip
from pipeline.encode.clip import ClipParams, Words
from pipeline.encode.contrast import Pairs, train
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.ops.checkpoint import Checkpoint
from pipeline.ops.held_out import split
from pipeline.seeds import seed_for
from stages.params import Params
from stages.params import load as load_params

TINY = {"patch": 8, "image": 16, "width": 32, "layers": 1, "steps": 12, "batch_size": 2, "held_out": 0.0}
PAIRS = [0, 1, 2, 3, 5]
"""items of toy with image and text; item 4 has neither"""


def params(*names: str, **encoders: dict[str, Any]) -> Params:
    return featured.params(*names, **{"clip": TINY} | encoders)


def stage(layout: Layout, given: Params) -> dict[str, dict[str, bytes]]:
    """Run the stage; return feature set -> file -> bytes, hidden files too, but for the journal."""
    featured.stage(layout, given)
    return {
        name: {p.name: p.read_bytes() for p in layout.features(name).iterdir() if p.is_file() and p.name != ".sha256"}
        for name in layout.feature_sets()
    }


def without(layout: Layout, column: str, items: list[int]) -> None:
    """Take the text, or the image, of some items away."""
    path, schema = (layout.items, schemas.ITEMS) if column == "text" else (None, schemas.IMAGES)
    path = path or io.shard(layout.images, "images", 0)
    table = io.read_table(path, schema)
    changes: dict[str, Any] = {"text": ""} if column == "text" else {"image": None, "status": "missing"}
    for name, value in changes.items():
        values = table[name].to_pylist()
        for item in items:
            values[item] = value
        table = table.set_column(table.column_names.index(name), schema.field(name), [values])
    io.write_table(table, path, schema)


def test_features_name_the_weights_that_made_them(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    files = stage(layout, params("clip", "clip-untrained"))
    for name in ("clip", "clip-untrained"):
        record = pq.read_schema(io.shard(layout.features(name), "features", 0)).metadata[b"alignrec"]
        weights = layout.features(name) / f"{name}.safetensors"
        assert json.loads(record)["weights"] == [{"name": weights.name, "sha256": io.sha256(weights)}]
        assert sorted(files[name]) == sorted([".key", weights.name, "features-00000.parquet", "features-00001.parquet"])
    assert np.abs(vectors(layout, "clip") - vectors(layout, "clip-untrained")).max() > 1e-3


@pytest.mark.parametrize("threads", [1, 3])
def test_a_killed_training_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    whole = stage(toy.outputs(tmp_path / "whole"), params("clip"))
    layout, save, steps = toy.outputs(tmp_path / "killed"), Checkpoint.save, []

    def killed(self: Checkpoint, tensors: Any, state: Any) -> None:
        save(self, tensors, state)
        steps.append(state)
        if state == 5:  # of 12
            raise KeyboardInterrupt

    monkeypatch.setattr(clip, "EVERY", 1)
    monkeypatch.setattr(Checkpoint, "save", killed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with pytest.raises(KeyboardInterrupt):
        stage(layout, params("clip"))
    assert (layout.features("clip") / ".clip-checkpoint.safetensors").is_file()
    actual = stage(layout, params("clip"))
    torch.set_num_threads(before)
    assert steps == [*range(1, 12)]
    assert actual["clip"].pop(".key") == whole["clip"].pop(".key")
    assert actual["clip"]["clip.safetensors"] == whole["clip"]["clip.safetensors"]
    assert actual == whole


def test_what_is_trained_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = toy.outputs(tmp_path)
    first = stage(layout, params("clip"))
    monkeypatch.setattr(clip, "train", None)
    io.shard(layout.features("clip"), "features", 1).unlink()
    assert stage(layout, params("clip")) == first
    with pytest.raises(TypeError):  # other settings, another training
        stage(layout, params("clip", clip=TINY | {"lr": 2e-3}))


def test_training_tells_each_pair_from_the_others(tmp_path: Path) -> None:
    """Eight images and eight texts of their own: after training, each text is nearest to its image."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    words = [f"{colour} thing" for colour in ("red", "green", "blue", "black", "white", "pink", "grey", "brown")]
    some = Words(8)
    some = Words(8, torch.from_numpy(np.unique(np.concatenate([some.tokens(word) for word in words]))))
    pairs = Pairs(np.arange(8), some.ids(words, 4), pixels)
    settings = ClipParams.model_validate(TINY | {"steps": 40, "batch_size": 8, "lr": 5e-3})
    torch.manual_seed(0)
    network, seen = clip.network(settings, 11, 4), []
    train(network, pairs, settings, 0, Checkpoint(tmp_path / "checkpoint", 1000), seen.append)
    encoder = clip.Clip(network, some)
    text = encoder.encode(encoder.prepare(None, words))[:, 32:]
    image = encoder.encode(clip.Prepared(torch.from_numpy(pixels), [], None))[:, :32]
    assert (text @ image.T).argmax(1).tolist() == list(range(8))
    assert sum(seen) == 40


def test_only_pairs_that_are_not_held_out_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, shown = toy.outputs(tmp_path), []
    without(layout, "text", [1])
    monkeypatch.setattr(clip, "train", lambda network, pairs, *_: shown.append(pairs))
    stage(layout, params("clip"))
    stage(layout, params("clip", clip=TINY | {"held_out": 0.4}))
    assert [len(pairs.ids) for pairs in shown] == [4, len(shown[1].ids)]
    theirs, _ = split(np.array(PAIRS), 0.4, seed_for(seed_for("pretrain", "shop", 0), "held out"))
    assert len(shown[1].ids) == len({*theirs.tolist()} - {1}) < 4


@pytest.mark.parametrize("pairs", [0, 1])
def test_a_data_set_without_pairs_is_refused_in_a_line(tmp_path: Path, pairs: int) -> None:
    layout = toy.outputs(tmp_path)
    without(layout, "text", PAIRS[pairs + 1 :])
    without(layout, "image", PAIRS[:1])
    with pytest.raises(UserError, match=rf"'encoders\.clip': shop has {pairs} items to train on with both image and"):
        stage(layout, params("clip"))


def test_the_vocabulary_is_what_occurs_and_control_tokens_are_none() -> None:
    words = Words(6)
    start, end = words.tokens("")
    plain = words.tokens("red apple")
    assert plain[0] == start
    assert plain[-1] == end
    assert words.tokens("red <start_of_text> apple <END_OF_TEXT> &lt;end_of_text&gt;") == plain
    assert len(words.tokens("red " * 100)) == 6
    table = torch.tensor(sorted(plain))
    ids = Words(6, table).ids(["red apple", "red", "quince"], 5)
    assert ids[0].tolist() == [table.tolist().index(token) + 1 for token in plain] + [0]
    assert ids[0].argmax() == 3  # the end, where CLIP reads the text
    assert not ids[2, 1] or ids[2, 1] in ids[0]
    assert len(Words(8).tokens("a" * 100_000)) == 8


def test_a_part_of_a_concat_is_trained_in_the_folder_of_the_concat(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    given = params("both", both={"kind": "concat", "of": ["clip", "tfidf"]})
    files = stage(layout, given)
    assert [*files] == ["both"]
    assert "clip.safetensors" in files["both"]
    listed = stage(layout, params("clip", "tfidf"))
    assert listed["clip"]["clip.safetensors"] == files["both"]["clip.safetensors"]
    halves = vectors(layout, "clip")
    stage(layout, given)
    np.testing.assert_allclose(vectors(layout, "both")[:, :64][0], halves[0] / np.linalg.norm(halves[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("encoders: {clip: {step: 3}}", r"unknown key 'encoders\.clip\.step'; did you mean 'steps'\?"),
        ("encoders: {clip: {image: 50}}", r"'encoders\.clip\.image': .*not a whole number of patches of 8 pixels"),
        ("encoders: {clip: {width: 40}}", r"'encoders\.clip\.width'"),
        ("encoders: {clip-untrained: {lr: 0.1}}", r"it takes the settings of clip; give them there"),
        ("pretrain: {distill_from: [clip]}", r"'pretrain\.distill_from': 'clip' is trained after pre-training"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, section: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"datasets: [shop]\nsources: {{shop: {{kind: sample}}}}\n{section}\n")
    with pytest.raises(UserError, match=message):
        load_params(path)


TAUGHT = {**TINY, "distill": 10.0, "distill_from": ["minilm", "tfidf"], "steps": 60, "lr": 5e-3, "batch_size": 5}


def test_a_taught_clip_is_read_by_the_map_to_its_teachers(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    files = stage(layout, params("clip", "minilm", clip=TAUGHT))
    x = vectors(layout, "clip")
    assert x.shape[1] <= 32
    weights = load(files["clip"]["clip.safetensors"])
    assert {name for name in weights if name.startswith("teacher")} == {"teacher.weight", "teacher.bias"}
    untaught = stage(layout, params("clip", clip=TAUGHT | {"distill": 0.0}))
    assert vectors(layout, "clip").shape[1] == 64
    assert not {name for name in load(untaught["clip"]["clip.safetensors"]) if "reading" in name}
