"""`linear`: available sets are relaxed, concatenated and reduced, as computed step by step here."""

from pathlib import Path

import numpy as np
import pytest
from shop import toy
from shop.featured import params, stage, vectors
from shop.releases import rewrite

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.registry import ENCODER
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.kinds.linear import CHOICES, LinearChoice
from alignrec.pipeline.features.params import Combine
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import Block, unit_rows
from alignrec.pipeline.runtime.layout import Layout
from tests.evaluation.probe.test_cold_items import GOOD, NOISE, data

RNG = np.random.default_rng(0)
TEXT = (RNG.normal(size=(50, 6)) * [9, 4, 3, 1, 1, 0.2] + 2).astype(np.float32)
BOTH = RNG.normal(size=(50, 8)).astype(np.float32)
BOTH[:5, 5:] = 0  # items without an image
COLUMNS = np.arange(8) < 5


def relaxed(x: np.ndarray, width: int, power: float) -> np.ndarray:
    """Centre, reduce by an SVD and scale the rows that are not zero."""
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
    actual = projections.fit_blocks(lambda: [(TEXT[:20], BOTH[:20]), (TEXT[20:], BOTH[20:])], blocks, 4, 0.5)(
        (TEXT, BOTH)
    )
    parts = [relaxed(x, 4, 0.5) for x in (TEXT, BOTH[:, :5], BOTH[:, 5:])]
    joined = np.hstack([unit_rows(x)[0] * weight for x, weight in zip(parts, (1, 1, 0.3), strict=True)])
    expected = relaxed(joined, 4, 0)
    assert actual.shape == (50, 4)
    np.testing.assert_allclose(np.abs((actual * expected).sum(0)), (expected**2).sum(0), rtol=1e-3)
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, atol=1e-4)


def test_it_is_written_whole_and_with_its_image_masked(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    stage(layout, params("tfidf", "cnn", sets={"linear": {"width": 3}, "linear-image-masked": {}}))
    rows = io.read_features(layout.features("linear"))
    assert rows["vector"].type.list_size == 3
    assert rows["has_image"].to_pylist() == [c is not None for c in toy.COLOURS]
    assert rows["has_text"].to_pylist() == [bool(t) for t in toy.TITLES]
    nothing = [i for i, c in enumerate(toy.COLOURS) if c is None and not toy.TITLES[i]]
    assert not vectors(layout, "linear")[nothing].any()
    masked = vectors(layout, "linear-image-masked")
    assert not io.read_features(layout.features("linear-image-masked"))["has_image"].to_numpy().any()
    fit = chain.read(layout.features("linear") / ENCODER, [vectors(layout, name).shape[1] for name in ("tfidf", "cnn")])
    expected = fit([vectors(layout, "tfidf"), np.zeros_like(vectors(layout, "cnn"))])
    np.testing.assert_allclose(masked, expected, atol=1e-6)


def shop(root: Path) -> Layout:
    """The shop of test_cold_items with texts that name the tastes, and a file of noise."""
    layout = Layout(root, "shop")
    words = [" ".join(f"word{j}{int(10 * abs(v))}" for j, v in enumerate(row)) for row in GOOD]
    toy.write_items(layout, toy.item_table(words))
    io.write_table(data().interactions, layout.interactions, schemas.INTERACTIONS)
    noise = root / "noise.npy"
    np.save(noise, NOISE)
    facts = {"name": noise.name, "url": f"file:{noise}", "bytes": noise.stat().st_size, "sha256": io.sha256(noise)}
    (layout.raw / noise.name).parent.mkdir(parents=True, exist_ok=True)
    (layout.raw / noise.name).write_bytes(noise.read_bytes())
    io.write_json(layout.sources, [{"role": "feature:noise", **facts}])
    return layout


def by_valid(root: Path, without: int | None = None) -> tuple[LinearChoice, np.ndarray]:
    """Return the combination that validation chose, and its vectors, for a split without a part."""
    layout, rows = shop(root), data().interactions
    kept = rows.filter(rows["split"].to_numpy() != without)
    io.write_table(kept, layout.interactions, schemas.INTERACTIONS)
    stage(layout, given())
    chosen = FeatureSet.of(layout, "linear").facts.settings
    return LinearChoice(*(chosen[key] for key in LinearChoice._fields)), vectors(layout, "linear")


def given(of: tuple[str, ...] = ("tfidf", "noise")) -> Params:
    source = {"kind": "mmrec", "interactions": "x.inter", "features": {"noise": "noise.npy"}}
    sets = {"sets": {"linear": {"of": list(of), "width": 8}}, "controls": []}
    own = {"encode": {"encoders": ["tfidf"], "shard_rows": 128}, "combine": sets, "beit3": {"sets": []}}
    return toy.params(sources={"shop": source}, **own)


def as_given(root: Path, way: LinearChoice) -> np.ndarray:
    """Return the vectors of a combination of the parts that `by_valid` left."""
    parts = [[vectors(Layout(root, "shop"), "tfidf"), NOISE]]
    every = [Block(i, np.ones(x.shape[1], bool), 1.0) for i, x in enumerate(parts[0])]
    return projections.fit_blocks(lambda: parts, every, 8, way.power, way.reduced)(parts[0])


def test_valid_chooses_the_way_and_test_does_not(tmp_path: Path) -> None:
    way, made = by_valid(tmp_path / "open")
    assert way in CHOICES
    np.testing.assert_allclose(made, as_given(tmp_path / "open", way), atol=1e-5)
    again, unseen = by_valid(tmp_path / "untested", without=schemas.TEST)
    assert again == way
    np.testing.assert_array_equal(made, unseen)


def test_a_set_that_tells_no_items_apart_is_left_out_and_said(tmp_path: Path) -> None:
    layout = shop(tmp_path)
    rewrite(layout.items, "text", lambda texts: ["red apple"] * len(texts))
    stage(layout, given())
    warnings = io.read_json(layout.run_record("combine"))["notes"]["warnings"]
    assert "linear: made without tfidf, whose vectors are all the same" in warnings
    assert np.linalg.matrix_rank(vectors(layout, "linear")) > 1
    with pytest.raises(UserError, match="linear: none of tfidf distinguishes items"):
        stage(layout, given(("tfidf",)))


def test_an_encoder_that_finds_nothing_to_fit_leaves_the_others(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    rewrite(layout.items, "text", lambda texts: [str(number) for number in range(len(texts))])
    own = params("tfidf", "minilm", sets={"linear": {"width": 3}})
    stage(layout, own.with_sections(own[Combine].model_copy(update={"controls": ["random"]})))
    assert layout.feature_sets() == ["linear", "minilm", "random"]
    (warning,) = io.read_json(layout.run_record("encode", "tfidf"))["notes"]["warnings"]
    assert warning.startswith("tfidf: no word is in two texts of shop")
    warnings = io.read_json(layout.run_record("combine"))["notes"]["warnings"]
    assert "linear: made without tfidf, which could not be encoded" in warnings
    assert io.width(layout.features("random")) == 384


def test_texts_in_a_language_that_a_network_cannot_read_are_left_out_and_said(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    titles = ["红色保温杯", "红色运动鞋", "保温杯家用", "运动鞋家用", "", "电饭煲家用"]
    rewrite(layout.items, "text", lambda _: titles)
    stage(
        layout,
        params("minilm", "tfidf", sets={"linear": {"width": 3}, "minilm-only": {"kind": "linear", "of": ["minilm"]}}),
    )
    notes = io.read_json(layout.run_record("encode", "minilm"))["notes"]
    assert notes["minilm"]["text_read"] < 0.75
    assert notes["minilm"]["text_cut"] == 0
    (warning,) = notes["warnings"]
    assert "minilm: cannot read" in warning
    assert "paraphrase-multilingual-MiniLM-L12-v2" in warning
    warnings = io.read_json(layout.run_record("combine"))["notes"]["warnings"]
    assert warnings == ["linear: made without minilm, which cannot read the texts"]
    fit = chain.read(layout.features("linear") / ENCODER)
    assert [block.part for block in fit.blocks] == [1]


def test_unread_texts_are_counted_by_item(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    titles = ["红色保温杯电饭煲", "red shoes for running", "a warm cup", "rice cooker", "", "blue shoes"]
    rewrite(layout.items, "text", lambda _: titles)
    stage(layout, params("minilm", sets={"linear": {"width": 3}}))
    notes = io.read_json(layout.run_record("encode", "minilm"))["notes"]
    assert notes["minilm"]["text_read"] > 0.8  # the mean over texts hides that one cannot be read
    assert notes["minilm"]["text_unread"] == 0.2
    (warning,) = notes["warnings"]
    assert "minilm: cannot read 20% of texts" in warning
    warnings = io.read_json(layout.run_record("combine"))["notes"].get("warnings", [])
    assert warnings == []  # `linear` keeps the encoder, which reads most texts


def test_without_an_encoder_at_hand_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no encoder to build on"):
        stage(toy.outputs(tmp_path), params(sets={"linear": {}}))
