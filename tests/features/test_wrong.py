"""Feature sets of wrong content: each modality is that of another item, by the same cycle over all items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from featured import stage, vectors
from pyarrow import compute as pc

import schemas
from pipeline import io
from pipeline.encode import batching
from pipeline.errors import UserError
from pipeline.features.sets import FeatureSets
from pipeline.features.wrong import Wrong, noise
from pipeline.layout import Layout
from stages.params import Params


def params(*names: str, of: str = "mean", **encoders: Any) -> Params:
    own = {f"{of}-wrong-{what}": {"kind": "wrong", "of": of, "what": what} for what in ("image", "text", "noise")}
    encode = {"encoders": [of, *names], "controls": [], "shard_rows": 4}
    return toy.params(encode=encode, encoders=own | encoders)


def source(layout: Layout, given: Params, name: str) -> np.ndarray:
    node = FeatureSets.of(layout, given.encode, given.encoders)[name]
    assert isinstance(node, Wrong)
    return node.source(len(io.read_table(layout.item_ids, schemas.ITEM_IDS)))


def test_columns_of_a_modality_are_another_items_and_nothing_is_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, names = toy.outputs(tmp_path), [f"minilm-cnn-wrong-{what}" for what in ("image", "text")]
    stage(layout, params(of="minilm-cnn"))
    monkeypatch.setattr(batching, "encode", None)
    given = params(*names, of="minilm-cnn")
    stage(layout, given)
    x, other = vectors(layout, "minilm-cnn"), source(layout, given, names[0])
    assert (np.sort(other) == np.arange(len(x))).all()
    assert (other != np.arange(len(x))).all()
    image, text = (vectors(layout, name) for name in names)
    np.testing.assert_array_equal(image, np.hstack([x[:, :384], x[other, 384:]]))
    np.testing.assert_array_equal(text, np.hstack([x[other, :384], x[:, 384:]]))


def test_where_modalities_do_not_stand_apart_the_encoder_reads_them_together(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"white": {"kind": "whitened", "of": "minilm-cnn", "width": 3}}
    layout, names = toy.outputs(tmp_path), ["white-wrong-image", "white-wrong-text"]
    given = params("minilm-cnn", *names, of="white", **parts)
    stage(layout, given)
    x, other = vectors(layout, "minilm-cnn"), source(layout, given, names[0])
    node = FeatureSets.of(layout, given.encode, given.encoders)["white"]
    mapped = node.fit()  # type: ignore[attr-defined]
    wrong = {
        "white-wrong-image": np.hstack([x[:, :384], x[other, 384:]]),
        "white-wrong-text": np.hstack([x[other, :384], x[:, 384:]]),
    }
    from pipeline.ops import whitening

    for name, expected in wrong.items():
        np.testing.assert_allclose(vectors(layout, name), whitening.applied(mapped, expected), atol=1e-4)
        rows = io.read_features(layout.features(name))
        assert rows["item_id"].to_pylist() == list(range(len(x)))
        assert pc.all(pc.is_valid(rows["has_image"])).as_py()


def test_noise_has_mean_and_deviation_of_each_column_and_zero_rows_stay() -> None:
    x = np.random.default_rng(0).normal(3, 2, (4000, 2)).astype(np.float32)
    x[7] = 0
    drawn = noise(x, 1)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.2)
    np.testing.assert_allclose(drawn.std(0), x.std(0), atol=0.2)
    assert not drawn[7].any()
    assert abs(np.corrcoef(drawn[:, 0], x[:, 0])[0, 1]) < 0.1


def test_a_set_that_reads_one_modality_is_refused_but_for_noise(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    stage(layout, params("tfidf-wrong-noise", of="tfidf"))
    assert vectors(layout, "tfidf-wrong-noise").shape == vectors(layout, "tfidf").shape
    with pytest.raises(UserError, match="tfidf does not read image and text"):
        stage(layout, params("tfidf-wrong-image", of="tfidf"))
