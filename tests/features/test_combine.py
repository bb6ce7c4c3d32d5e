"""Concatenations, whitened and masked sets, and controls: rows, encoders of new items, and refusals."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop import toy
from shop.featured import params, stage, vectors

from alignrec import schemas
from alignrec.commands.params import read
from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.registry import ENCODER
from alignrec.pipeline.features import batching
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.release.loading import Project, load_encoder
from alignrec.pipeline.runtime.layout import Layout

BOTH = {"both": {"kind": "concat", "of": ["tfidf", "descriptors"]}}
WHITE = {"kind": "whitened", "of": "tfidf"}


def test_parts_stand_side_by_side_each_of_length_one_and_a_masked_one_is_zero(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    stage(layout, params("tfidf", "descriptors", sets=BOTH | {"both-image-masked": {}, "both-text-masked": {}}))
    text, image = (unit_rows(vectors(layout, name))[0] for name in ("tfidf", "descriptors"))
    np.testing.assert_allclose(vectors(layout, "both"), np.hstack([text, image]), atol=1e-6)
    np.testing.assert_allclose(vectors(layout, "both-image-masked"), np.hstack([text, 0 * image]), atol=1e-6)
    np.testing.assert_allclose(vectors(layout, "both-text-masked"), np.hstack([0 * text, image]), atol=1e-6)
    assert not any(io.read_features(layout.features("both-image-masked"))["has_image"].to_pylist())
    spans = FeatureSet.of(layout, "both").spans
    assert [(span.reads, span.width) for span in spans] == [(["text"], text.shape[1]), (["image"], image.shape[1])]


def test_a_whitened_set_is_the_other_after_processing_and_is_made_again_with_its_settings(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    first = stage(layout, params("tfidf", sets={"white": WHITE | {"width": 2}}))
    raw = vectors(layout, "tfidf")
    expected = projections.fit_pca(lambda: iter([raw[:4], raw[4:]]), 2).apply(raw)
    np.testing.assert_allclose(vectors(layout, "white"), expected, atol=1e-6)
    again = stage(layout, params("tfidf", sets={"white": WHITE | {"width": 1}}))
    assert again["tfidf"] == first["tfidf"]
    assert vectors(layout, "white").shape == (6, 1)


def test_what_is_saved_encodes_an_item_as_the_set_has_it(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    sets = BOTH | {"linear": {"of": ["both", "tfidf"], "width": 3}, "white": {"kind": "whitened", "of": "both"}}
    stage(layout, params("tfidf", "descriptors", sets=sets))
    images = io.read_table(layout.images / "images-00000.parquet", schemas.IMAGES)["image"].to_pylist()
    for name in ("both", "linear", "white", "tfidf"):
        encoder = load_encoder(Project(layout), name).encoder
        made = batching.encode_items(encoder, toy.TITLES, images, 64)
        np.testing.assert_allclose(made.vectors, vectors(layout, name), atol=1e-4, err_msg=name)


def test_a_set_that_is_named_no_more_is_deleted(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    stage(layout, params("tfidf", "descriptors", sets=BOTH))
    stage(layout, params("tfidf", "descriptors", sets={"other": BOTH["both"]}))
    assert not layout.features("both").exists()
    assert layout.features("other").is_dir()


def test_a_set_that_fails_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    given = params("tfidf", sets={"tfidf-image-masked": {}, "white": WHITE})
    with pytest.raises(UserError, match="1 of 2 feature sets failed: tfidf-image-masked: tfidf reads only texts"):
        stage(layout, given)
    assert (layout.work("combine") / "white" / ENCODER / chain.CHAIN_FILE).is_file()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("a: {kind: concat, of: [b, tfidf]}, b: {kind: whitened, of: a}", "a and b are parts of one another"),
        ("a: {kind: whitened, of: a}", "'combine.sets.a.of': it is a part of itself"),
        ("a: {}", "'combine.sets.a.kind' is required"),
        ("a: {kind: concatt, of: [tfidf]}", "'combine.sets.a.kind': no 'concatt'; did you mean 'concat'?"),
        ("a: {kind: whitened, of: tfidff}", "'combine.sets.a.of': no 'tfidff'; did you mean 'tfidf'?"),
        ("tfidf: {kind: whitened, of: tfidf}", "two feature sets are called 'tfidf'"),
        ("linear: {widht: 3}", "unknown key 'combine.sets.linear.widht'; did you mean 'width'?"),
    ],
)
def test_what_cannot_be_made_is_one_line_that_names_the_key(tmp_path: Path, sets: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    head = "datasets: [shop]\nsources: {shop: {kind: sample}}\nencode: {encoders: [tfidf]}\nbeit3: {sets: []}\n"
    path.write_text(f"{head}combine: {{sets: {{{sets}}}}}\n")
    with pytest.raises(UserError) as e:
        read(path)
    assert said in str(e.value)


def test_sets_come_after_their_parts_and_linear_is_of_all_encoders() -> None:
    given = params("tfidf", "descriptors", sets={"linear": {"of": ["both"]}, "open": {"kind": "linear"}} | BOTH)
    declared = DeclaredSets(given, "shop")
    made = declared.without_controls()
    assert made.index("both") < made.index("linear")
    assert declared.parts_of("open") == ["tfidf", "descriptors"]


@pytest.fixture(scope="module")
def whitened(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """TF-IDF and a whitened set of it."""
    layout = toy.outputs(tmp_path_factory.mktemp("whitened"))
    stage(layout, params("tfidf", sets={"white": WHITE}))
    return layout


MAKE = "run `alignrec combine shop` first"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"parts": ["white"]}, "made of itself, by white -> white; make or fetch it again"),
        ({"parts": ["nothing"]}, "no feature set 'nothing' of shop; list it in the parameters, run `dvc repro`"),
        ({"kind": "new", "parts": []}, "encoder 'new' is unknown here"),
        ({"weights": "tfidf"}, "names both weights and parts"),
        ({"format": 2}, "white/set.json: unknown key 'format'; valid: "),
        ({"kind": None}, f"white/set.json: 'kind': input should be a valid string, found None; {MAKE}"),
        ("set.json", "white: no feature set 'white' of shop; list it in the parameters, run `dvc repro`"),
        ("encoder/chain.json", f"white/encoder/chain.json: not there; {MAKE}"),
        ("encoder/maps.safetensors", "white/encoder/maps.safetensors: not there; make or fetch it again"),
    ],
)
def test_a_set_that_was_edited_or_is_half_there_is_refused_in_one_line(
    whitened: Layout, tmp_path: Path, changed: dict[str, Any] | str, said: str
) -> None:
    layout = Layout(shutil.copytree(whitened.root, tmp_path / "outputs"), "shop")
    folder = layout.features("white")
    if isinstance(changed, str):
        (folder / changed).unlink()
    else:
        io.write_json(folder / "set.json", io.read_json(folder / "set.json") | changed)
    with pytest.raises(UserError) as e:
        load_encoder(Project(layout), "white")
    assert said in str(e.value)
    assert "\n" not in str(e.value)
