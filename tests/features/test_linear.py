"""`linear`: what is at hand, each part relaxed, side by side, brought to one width; held to the steps by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from featured import stage, vectors

import schemas
from pipeline import io
from pipeline.errors import UserError
from pipeline.features.registry import at_hand
from pipeline.ops import joining
from pipeline.ops.joining import Block
from pipeline.ops.rows import unit_rows
from stages.params import Params, for_dataset
from tests.features import test_chosen
from tests.probe import test_cold_items

RNG = np.random.default_rng(0)
TEXT = (RNG.normal(size=(50, 6)) * [9, 4, 3, 1, 1, 0.2] + 2).astype(np.float32)
BOTH = RNG.normal(size=(50, 8)).astype(np.float32)
BOTH[:5, 5:] = 0  # items without an image
COLUMNS = np.arange(8) < 5


def params(*names: str, **encoders: dict[str, Any]) -> Params:
    encode = {"encoders": list(names), "controls": [], "shard_rows": 4}
    return for_dataset(toy.params(encode=encode, encoders=encoders), "shop")


def relaxed(x: np.ndarray, width: int, power: float) -> np.ndarray:
    """Centre, PCA and scale rows that are not zero, by an SVD."""
    there = x.any(axis=1)
    centred = (x[there] - x[there].mean(axis=0)).astype(np.float64)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    variance = (singular**2 / len(centred))[:width]
    variance += 1e-3 * variance.mean()
    out = np.zeros((len(x), len(variance)))
    out[there] = centred @ directions[:width].T / variance ** (power / 2)
    return out


def test_it_is_the_parts_relaxed_side_by_side_and_brought_to_one_width() -> None:
    blocks = [Block(0, np.ones(6, bool), 1.0), Block(1, COLUMNS, 1.0), Block(1, ~COLUMNS, 0.3)]
    actual = joining.fit(lambda: [(TEXT[:20], BOTH[:20]), (TEXT[20:], BOTH[20:])], blocks, 4, 0.5)((TEXT, BOTH))
    parts = [relaxed(x, 4, 0.5) for x in (TEXT, BOTH[:, :5], BOTH[:, 5:])]
    joined = np.hstack([unit_rows(x)[0] * weight for x, weight in zip(parts, (1, 1, 0.3), strict=True)])
    expected = relaxed(joined, 4, 0)
    assert actual.shape == (50, 4)
    np.testing.assert_allclose(np.abs((actual * expected).sum(0)), (expected**2).sum(0), rtol=1e-3)
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-4)


def test_what_is_at_hand_is_every_encoder_that_is_not_trained_here() -> None:
    made = ["beit3", "beit3-raw", "tfidf", "minilm-cnn", "words", "white", "theirs", "minilm-cnn-image-masked"]
    encoders = {"words": {"kind": "minilm"}, "white": {"kind": "whitened", "of": "tfidf"}}
    assert at_hand(encoders, made) == ["tfidf", "minilm-cnn", "words", "theirs"]
    assert at_hand({}, ["minilm", "cnn", "minilm-cnn", "tfidf"]) == ["minilm", "cnn", "tfidf"]


def test_it_is_written_with_its_image_left_out_or_masked(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    names = "linear", "linear-image-masked", "words", "tfidf", "minilm-cnn"
    stage(layout, params(*names, linear={"width": 3, "reduced": True}, words={"kind": "linear", "image": 0.0}))
    rows = io.read_features(layout.features("linear"))
    assert rows["vector"].type.list_size == 3
    assert rows["has_image"].to_pylist() == [c is not None for c in toy.COLOURS]
    assert rows["has_text"].to_pylist() == [bool(t) for t in toy.TITLES]
    nothing = [i for i, c in enumerate(toy.COLOURS) if c is None and not toy.TITLES[i]]
    assert not vectors(layout, "linear")[nothing].any()
    assert not io.read_features(layout.features("linear-image-masked"))["has_image"].to_numpy().any()
    without_text = [i for i, t in enumerate(toy.TITLES) if not t]
    assert not vectors(layout, "words")[without_text].any()


def by_valid(root: Path, without: int | None = None, **own: Any) -> tuple[list[float], np.ndarray]:
    """Return what each way scored on valid in the shop of test_chosen, and the vectors, without a part of the split."""
    layout, rows = test_chosen.shop(root), test_cold_items.data().interactions
    io.write_json(layout.sources, [one | {"role": "feature:noise"} for one in io.read_json(layout.sources)])
    kept = rows.filter(rows["split"].to_numpy() != without)
    io.write_table(kept, layout.interactions, schemas.INTERACTIONS)
    own = {"of": ["tfidf", "noise"], "width": 8, **own}
    encode = {"encoders": ["tfidf", "linear"], "controls": [], "shard_rows": 128}
    stage(layout, toy.params(encode=encode, encoders={"linear": own}))
    tried = layout.features("linear") / "tried.json"
    return io.read_json(tried) if tried.is_file() else [], vectors(layout, "linear")


def test_valid_chooses_what_is_left_open_and_test_does_not(tmp_path: Path) -> None:
    scores, made = by_valid(tmp_path / "open")
    ways = list(product((0.5, 0.3), (0.3, 0.6, 1.0), (True, False)))
    assert len(scores) == len(ways)
    power, image, reduced = ways[int(np.argmax(scores))]
    none, alike = by_valid(tmp_path / "given", power=power, image=image, reduced=reduced)
    assert none == []
    np.testing.assert_array_equal(made, alike)
    again, unseen = by_valid(tmp_path / "untested", without=schemas.TEST)
    assert again == scores
    np.testing.assert_array_equal(made, unseen)


def test_without_valid_nothing_is_chosen(tmp_path: Path) -> None:
    scores, made = by_valid(tmp_path / "open", without=schemas.VALID)
    assert scores == []
    np.testing.assert_array_equal(made, by_valid(tmp_path / "given", power=0.5, image=0.3, reduced=True)[1])
    assert made.shape[1] == 8


def test_without_an_encoder_at_hand_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no encoder to build on"):
        stage(toy.outputs(tmp_path), params("linear"))
