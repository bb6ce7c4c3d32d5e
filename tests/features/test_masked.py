"""Feature sets without a modality: what the encoder gives for items that lack it, without encoding again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import featured
import networks
import numpy as np
import pyarrow as pa
import pytest
import toy
from featured import stage, vectors

import schemas
from pipeline import io
from pipeline.benchmark import mask
from pipeline.errors import UserError
from pipeline.layout import Layout
from stages.params import Params, read

MODALITIES = {"image": "text", "text": "image"}
"""modality -> the other"""


def params(*names: str, **encoders: dict[str, Any]) -> Params:
    return featured.params(*names, **encoders)


def both(name: str) -> list[str]:
    return [name, f"{name}-image-masked", f"{name}-text-masked"]


def lacking(root: Path, modality: str) -> Layout:
    """Write a shop of which no item has the modality."""
    layout = toy.outputs(root)
    path = layout.items if modality == "text" else io.shard(layout.images, "images", 0)
    schema = schemas.ITEMS if modality == "text" else schemas.IMAGES
    table, name = io.read_table(path, schema), "text" if modality == "text" else "image"
    place, field = table.column_names.index(name), schema.field(name)
    nothing = pa.array(["" if modality == "text" else None] * len(table), field.type)
    io.write_table(table.set_column(place, field, nothing), path, schema)
    return layout


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("networks") / "siglip"
    networks.siglip(folder)
    return str(folder)


CASES: dict[str, tuple[list[str], dict[str, dict[str, Any]]]] = {
    "minilm-cnn": ([], {}),
    "two": ([], {"two": {"kind": "huggingface", "join": "concat"}}),
    "mean": ([], {"mean": {"kind": "huggingface", "join": "mean"}}),
    "side": ([], {"side": {"kind": "concat", "of": ["tfidf", "cnn"]}}),
    "listed": (["tfidf", "cnn"], {"listed": {"kind": "concat", "of": ["tfidf", "cnn"]}}),
    "nested": ([], {"nested": {"kind": "concat", "of": ["minilm-cnn", "cnn", "tfidf"]}}),
    "mixed": ([], {"mixed": {"kind": "concat", "of": ["mean", "cnn"]}, "mean": {"kind": "huggingface"}}),
}
"""feature set -> what is listed beside it, and section `encoders`"""


@pytest.mark.parametrize("name", CASES)
def test_a_masked_set_is_what_the_encoder_gives_for_items_that_lack_the_modality(
    tmp_path: Path, siglip: str, name: str
) -> None:
    beside, defined = CASES[name]
    defined = {n: e | ({"model": siglip} if e["kind"] == "huggingface" else {}) for n, e in defined.items()}
    layout = toy.outputs(tmp_path / "whole")
    stage(layout, params(*both(name), *beside, **defined))
    for modality, other in MODALITIES.items():
        if modality == "text" and name in ("side", "listed", "nested"):
            continue  # TF-IDF of no text is refused
        bare = lacking(tmp_path / modality, modality)
        stage(bare, params(name, *beside, **defined))
        masked = io.read_features(layout.features(f"{name}-{modality}-masked"))
        np.testing.assert_allclose(io.matrix(masked["vector"]), vectors(bare, name), atol=2e-5)
        assert not any(masked[f"has_{modality}"].to_pylist())
        whole = io.read_features(layout.features(name))
        assert masked[f"has_{other}"].equals(whole[f"has_{other}"])
        assert np.abs(io.matrix(masked["vector"]) - vectors(layout, name)).max() > 0.01
    assert mask.maskable(layout) == [name]


@pytest.mark.parametrize("of", ["tfidf", "cnn", "minilm-cnn-image-masked", "ready-white"])
def test_what_reads_one_modality_cannot_be_masked(tmp_path: Path, of: str) -> None:
    layout = toy.outputs(tmp_path)
    ready = {"role": "feature:ready", "name": "ready.npy", "url": "file:x", "bytes": 1, "sha256": "a" * 64}
    io.write_json(layout.sources, [ready])
    np.save(layout.sources.parent / "ready.npy", np.eye(6, 3, dtype=np.float32))
    given = {
        "mine": {"kind": "masked", "of": of, "modality": "text"},
        "ready-white": {"kind": "whitened", "of": "ready"},
    }
    listed = dict.fromkeys(["mine", of, *(["minilm-cnn"] if "minilm" in of else [])])
    with pytest.raises(UserError, match=rf"{of} (reads only \w+s|is imported), so nothing can be masked"):
        stage(layout, params(*listed, **given))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (
            "[minilm-cnn, minilm-cnn-imge-masked]",
            r"no 'minilm-cnn-imge-masked'; did you mean 'minilm-cnn-image-masked'\?",
        ),
        ("[minilm, minilm-cnn-text-masked]", r"'minilm-cnn-text-masked' is made of 'minilm-cnn'; list it there too"),
        ("[mine]", r"'encoders\.mine\.of': 'minilm-cnn' is not under encode\.encoders; list it there too"),
    ],
)
def test_masked_names_are_checked_when_parameters_are_read(tmp_path: Path, listed: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        f"datasets: [shop]\nsources: {{shop: {{kind: sample}}}}\nencode: {{encoders: {listed}}}\n"
        "encoders: {mine: {kind: masked, of: minilm-cnn, modality: image}}\n"
    )
    with pytest.raises(UserError, match=message):
        read(path)
