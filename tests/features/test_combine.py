"""Concatenations, whitened and masked sets, and controls: rows, encoders of new items, and refusals."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from shop import toy
from shop.featured import params, stage, vectors

from alignrec import schemas
from alignrec.commands.params import read
from alignrec.pipeline import io
from alignrec.pipeline.encoders import chain
from alignrec.pipeline.encoders.registry import ENCODER
from alignrec.pipeline.evaluation.benchmark.plan import list_labels
from alignrec.pipeline.evaluation.benchmark.significance import declare_pairs
from alignrec.pipeline.features import batching
from alignrec.pipeline.features.folder import FeatureSet
from alignrec.pipeline.features.kinds.planted import COARSE, MOTIVES, planted_halves
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.release.loading import Project, load_encoder
from alignrec.pipeline.report.probes import leak_tables
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.sources.base import PLANTED_FILE
from tests.features.test_linear import shop as described_shop

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


# --- upper bounds: what is planted, which other sources lack, and a leak of all interactions


ROWS = {"category": [0, 0, 0, 1], "subcategory": [0, 0, 1, 2], "colour": [0, 1, 0, 0], "look": [0, 1, 0, 2]}


def shop(root: Path) -> Layout:
    layout = Layout(root, "shop")
    asins = [f"A{i}" for i in range(4)]
    columns = {name: pa.array(values, pa.int32()) for name, values in ROWS.items()}
    io.write_table(pa.table({"asin": asins} | columns), layout.raw / PLANTED_FILE, schemas.PLANTED)
    io.write_json(layout.sources, [])
    kept = pa.table({"item_id": pa.array([0, 1, 2], pa.int32()), "asin": ["A3", "A0", "A2"]})
    io.write_table(kept, layout.item_ids, schemas.ITEM_IDS)
    return layout


def test_products_are_the_chances_of_a_shopper_who_has_picked_one_item_to_pick_the_other(tmp_path: Path) -> None:
    x = np.hstack(planted_halves(shop(tmp_path)))
    theme, look, _ = MOTIVES
    a0_a2 = COARSE * theme / 3 + look / 2 + COARSE * look / 3  # a category of three, a look of two, a colour of three
    a3_a0 = COARSE * look / 3
    np.testing.assert_allclose((x @ x.T)[[1, 0, 0], [2, 1, 2]], [a0_a2, a3_a0, a3_a0], rtol=1e-5)


def test_its_halves_stand_apart_and_a_source_that_is_not_generated_has_none(tmp_path: Path) -> None:
    layout = shop(tmp_path)
    stage(layout, params(sets={"planted": {}, "planted-image-masked": {}}))
    whole, text = vectors(layout, "planted"), planted_halves(layout)[0]
    np.testing.assert_array_equal(vectors(layout, "planted-image-masked")[:, : text.shape[1]], text)
    assert not vectors(layout, "planted-image-masked")[:, text.shape[1] :].any()
    assert whole[:, text.shape[1] :].any()
    (layout.raw / PLANTED_FILE).unlink()
    with pytest.raises(UserError, match="shop is not generated; leave planted out"):
        planted_halves(layout)


GIVEN = """
datasets: [shop, files]
sources: {shop: {kind: sample}, files: {kind: tabular, interactions: a.csv, items: b.csv}}
encode: {encoders: [tfidf]}
beit3: {sets: []}
combine: {sets: {linear: {}, leaked: {}, planted: {}, planted-image-masked: {}}}
"""


def test_only_a_generated_dataset_has_planted_sets_and_bounds_are_neither_trained_on_nor_released(
    tmp_path: Path,
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GIVEN)
    of_shop, of_files = (read(path, name) for name in ("shop", "files"))
    assert [*of_shop.combine.sets] == ["linear", "leaked", "planted", "planted-image-masked"]
    assert [*of_files.combine.sets] == ["linear", "leaked"]
    assert of_shop.publish.features == ["linear", "tfidf"]
    assert of_shop.benchmark.features == ["tfidf", "linear", "random", "shuffled", "constant"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            GIVEN + "publish: {features: [planted-image-masked]}",
            "'publish.features': 'planted-image-masked' is an upper",
        ),
        (GIVEN + "publish: {features: [leaked]}", "'publish.features': 'leaked' is an upper bound, and no feature"),
        (GIVEN + "train: {features: leaked}", "'train.features': 'leaked' is an upper bound, and no feature; leave it"),
        (GIVEN + "semantic_ids: {features: [leaked]}", "'semantic_ids.features': 'leaked' is an upper bound"),
        (GIVEN.replace("linear: {}", "linear: {of: [leaked]}"), "'combine.sets.linear.of': 'leaked' is an upper bound"),
        (GIVEN.replace("leaked: {}", "best: {kind: leaked}"), "'combine.sets.best': a set of kind 'leaked' is called"),
    ],
)
def test_naming_it_as_a_feature_is_refused(tmp_path: Path, given: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(given)
    with pytest.raises(UserError, match=re.escape(said)):
        read(path)


def test_noise_has_nothing_of_the_way_to_the_leak_and_good_features_much(tmp_path: Path) -> None:
    layout = described_shop(tmp_path)
    source = {"kind": "mmrec", "interactions": "x.inter", "features": {"noise": "noise.npy"}}
    own = {"encode": {"encoders": ["tfidf"]}, "beit3": {"sets": []}, "combine": {"sets": {"leaked": {"width": 8}}}}
    given = toy.params(sources={"shop": source}, **own)
    stage(layout, given)
    toy.run("probe", given, layout.root, layout.dataset)
    figures = io.read_json(layout.probes)
    (table,) = leak_tables(figures)
    shares = {name: [int(cell.rstrip("%")) for cell in cells] for name, *cells in table.rows}
    assert table.head[1:] == ["Item-CF", "content neighbours", "cold items"]
    assert shares["leaked"] == [100] * 3
    assert shares["shuffled"] == [0] * 3
    assert max(np.abs(shares["noise"])) < 8
    assert max(shares["tfidf"]) > 30
    assert not any("leaked" in (row["a"], row["b"]) for row in figures["verdicts"])


def test_without_the_leak_there_is_no_way_to_it() -> None:
    recalls = {"chance": 0.0, "shuffled": -0.001, "linear": 0.05}
    judged = {name: {"recall@20": recall} for name, recall in recalls.items()}
    figures = {"content_knn": {"users": 9, **judged}}
    trained = {"ease recall@20": {"shuffled": -0.001, "linear": 0.05}}
    assert leak_tables(figures, trained) == []

    leaked = {"content_knn": figures["content_knn"] | {"leaked": {"recall@20": 0.1}}}
    (table,) = leak_tables(leaked, trained)
    assert table.head == ["feature set", "content neighbours"]
    assert ["linear", "50%"] in table.rows
    assert not any(row[0] == "chance" for row in table.rows)


def test_it_is_benchmarked_under_two_models_and_never_tested(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GIVEN + "benchmark: {models: [alignrec, l3ae, vbpr], features: [tfidf, leaked]}")
    entries = list_labels(read(path, "shop"))
    assert {entry.model for entry in entries if entry.features == "leaked"} == {"alignrec", "l3ae"}
    assert not any("leaked" in (a.features, b.features) for a, b in declare_pairs(entries, "tfidf"))
