"""TF-IDF, a baseline of words without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy
from featured import params, stage, vectors

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.encode.tfidf import count_terms, weigh_terms
from alignrec.pipeline.errors import UserError

TEXTS = ["red red apple", "red ball", "blue car", "blue car of steel", "", "odd"]


def test_weights_are_those_of_the_equation() -> None:
    terms, weights, _ = count_terms(TEXTS)
    actual = weigh_terms(terms, weights, ["red red apple car"]).toarray()[0]
    idf = np.log(7 / 3) + 1  # red, blue and car stand in two of six texts; apple, in one, is no term
    expected = np.array([(1 + np.log(2)) * idf, idf])
    assert len(terms) == 3
    np.testing.assert_allclose(np.sort(actual)[::-1][:2], expected / np.linalg.norm(expected))
    assert weigh_terms(terms, weights, ["", "odd"]).nnz == 0


def test_an_item_without_text_is_zero(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    stage(layout, params("tfidf"))
    actual = vectors(layout, "tfidf")
    assert not actual[4].any()
    assert np.abs(actual[[0, 1]]).max() > 0.1  # red apple, red ball
    table = io.read_features(layout.features("tfidf"))
    assert table["has_text"].to_pylist() == [bool(t) for t in toy.TITLES]
    assert not any(table["has_image"].to_pylist())


def test_a_catalogue_without_common_words_is_refused(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    items = io.read_table(layout.items, schemas.ITEMS)
    io.write_table(items.set_column(6, "text", [[f"word{i}" for i in range(6)]]), layout.items, schemas.ITEMS)
    with pytest.raises(UserError, match=r"no word is in two texts of shop; leave tfidf out of encode\.encoders"):
        stage(layout, params("tfidf"))
