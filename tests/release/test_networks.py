"""A release says whose networks made its features, in the manifest and on the card."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.release import manifest
from pipeline.run import running
from stages import publish

QWEN = {
    "kind": "sentence-transformers", "model": "Qwen/Qwen3-VL-Embedding-2B", "revision": "c" * 40,
    "library": "sentence-transformers 6.2.0", "modalities": ["image", "text"],
    "prompt": "Represent | the <b>item", "dim": 2,
}  # fmt: skip


def release(root: Path, encoder: dict[str, object] | None) -> Path:
    layout = toy.outputs(root)
    path = io.shard(layout.features("minilm-cnn"), "features", 0)
    table = io.read_features(path.parent)
    record = toy.record("encode") | ({"encoder": encoder} if encoder else {})
    io.write_table(table, path, schemas.features(toy.WIDTH), record)
    asked = toy.params(publish={"features": ["beit3", "minilm-cnn"]})
    with running("publish", "shop", asked, root) as run:
        publish.main(run)
    return layout.release


def test_the_manifest_and_the_card_have_the_encoder(tmp_path: Path) -> None:
    both = {
        "kind": "concat",
        "dim": 4,
        "parts": [{"name": "qwen3", **QWEN, "dim": None}, {"name": "cnn", "kind": "cnn"}],
    }
    for root, encoder in ((tmp_path / "one", QWEN), (tmp_path / "both", both)):
        folder = release(root, encoder)
        encoders = manifest.load(folder).encoders
        assert encoders == {"minilm-cnn": manifest.Encoder.model_validate(encoder)}
        card = (folder / "README.md").read_text()
        assert (
            f"Qwen/Qwen3-VL-Embedding-2B | {'c' * 40} | sentence-transformers 6.2.0 | image, text | Represent" in card
        )
        assert "<b>" not in card
    assert "| minilm-cnn: cnn | cnn |" in card


def test_a_release_of_our_own_networks_says_nothing_of_others(tmp_path: Path) -> None:
    folder = release(tmp_path, None)
    assert manifest.load(folder).encoders == {}
    assert "Made with these published networks" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("changed", [{"kind": 3}, {"revison": "x"}])
def test_a_manifest_with_another_encoder_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    folder = release(tmp_path, QWEN)
    path = folder / manifest.NAME
    content = io.read_json(path)
    content["encoders"]["minilm-cnn"] |= changed
    io.write_json(path, content)
    with pytest.raises(UserError, match="encoders"):
        manifest.load(folder)
