"""Feature sets that make a comparison fair: TF-IDF beside networks, and sets after the same processing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy
from featured import params, stage, vectors

import schemas
from pipeline import io
from pipeline.encode import tfidf
from pipeline.encode.base import Context
from pipeline.encode.tfidf import Terms, TfidfParams
from pipeline.errors import UserError
from pipeline.ops import whitening

TEXTS = ["red red apple", "red ball", "blue car", "blue car of steel", "", "odd"]


# --- TF-IDF


def test_weights_are_those_of_the_equation() -> None:
    terms = Terms(TEXTS)
    actual = terms.weights(["red red apple car"]).toarray()[0]
    idf = np.log(7 / 3) + 1  # red, blue and car stand in two of six texts; apple, in one, is no term
    expected = np.array([(1 + np.log(2)) * idf, idf])
    assert len(terms) == 3
    np.testing.assert_allclose(np.sort(actual)[::-1][:2], expected / np.linalg.norm(expected))
    assert terms.weights(["", "odd"]).nnz == 0


def test_an_item_without_text_is_zero_and_one_of_equal_words_is_equal(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    first = stage(layout, params("tfidf"))
    actual = vectors(layout, "tfidf")
    assert not actual[4].any()
    assert np.abs(actual[[0, 1]]).max() > 0.1  # red apple, red ball
    table = io.read_features(layout.features("tfidf"))
    assert table["has_text"].to_pylist() == [bool(t) for t in toy.TITLES]
    assert not any(table["has_image"].to_pylist())
    io.shard(layout.features("tfidf"), "features", 1).unlink()  # killed half-way
    assert stage(layout, params("tfidf")) == first


def test_a_catalogue_without_common_words_is_refused(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    items = io.read_table(layout.items, schemas.ITEMS)
    io.write_table(items.set_column(6, "text", [[f"word{i}" for i in range(6)]]), layout.items, schemas.ITEMS)
    with pytest.raises(UserError, match=r"'encoders\.tfidf'"):
        tfidf.make(Context(layout, toy.PARAMS.encode, name="tfidf"), TfidfParams())


# --- whitened


def test_a_whitened_set_is_the_other_after_processing(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    given = params("white", "minilm", white={"kind": "whitened", "of": "minilm", "width": 2})
    first = stage(layout, given)
    raw = vectors(layout, "minilm")
    np.testing.assert_array_equal(vectors(layout, "white"), fitted(raw, 2, 1))
    assert not vectors(layout, "white")[4].any()
    io.shard(layout.features("white"), "features", 1).unlink()
    assert stage(layout, given) == first
    other = params("white", "minilm", white={"kind": "whitened", "of": "minilm", "width": 1})
    assert stage(layout, other)["white"] != first["white"]
    assert vectors(layout, "white").shape == (6, 1)


def fitted(raw: np.ndarray, width: int, power: float) -> np.ndarray:
    """Return vectors as a whitened set has them, which is fitted to shards of four."""
    return whitening.applied(whitening.fit_pca(lambda: iter([raw[:4], raw[4:]]), width, power), raw)


def test_a_whitened_set_of_an_imported_one(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    ready = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    source = {"role": "feature:ready", "name": "ready.npy", "url": "file:x", "bytes": 1, "sha256": "a" * 64}
    io.write_json(layout.sources, [source])
    np.save(layout.sources.parent / "ready.npy", ready)
    given = params("white", "tfidf", "side", white={"kind": "whitened", "of": "ready"},
                   side={"kind": "concat", "of": ["white", "tfidf"]})  # fmt: skip
    stage(layout, given)
    np.testing.assert_array_equal(vectors(layout, "white"), whitening.processed(ready, 128))
    assert vectors(layout, "side").shape[1] == 3 + vectors(layout, "tfidf").shape[1]
