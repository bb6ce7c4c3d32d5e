"""Upper bounds: what is planted, which other sources lack, and a leak of all interactions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from featured import params, stage, vectors

from alignrec import schemas
from alignrec.commands.params import Params, read
from alignrec.pipeline import io
from alignrec.pipeline.benchmark.plan import list_entries
from alignrec.pipeline.benchmark.significance import declare_pairs
from alignrec.pipeline.combine.controls import planted_halves
from alignrec.pipeline.errors import UserError
from alignrec.pipeline.harness.layout import Layout
from alignrec.pipeline.harness.run import running
from alignrec.pipeline.report.probes import leak_tables
from alignrec.pipeline.sources.base import PLANTED
from alignrec.pipeline.sources.shoppers import COARSE, MOTIVES
from alignrec.stages import probe
from tests.combine.test_linear import shop as described_shop

ROWS = {"category": [0, 0, 0, 1], "subcategory": [0, 0, 1, 2], "colour": [0, 1, 0, 0], "look": [0, 1, 0, 2]}


def shop(root: Path) -> Layout:
    layout = Layout(root, "shop")
    asins = [f"A{i}" for i in range(4)]
    columns = {name: pa.array(values, pa.int32()) for name, values in ROWS.items()}
    io.write_table(pa.table({"asin": asins} | columns), layout.raw / PLANTED, schemas.PLANTED)
    io.write_json(layout.sources, [])
    kept = pa.table({"item_id": pa.array([0, 1, 2], pa.int32()), "asin": ["A3", "A0", "A2"]})
    io.write_table(kept, layout.item_ids, schemas.ITEM_IDS)
    return layout


def test_products_are_the_chances_of_a_shopper_who_has_picked_one_item_to_pick_the_other(tmp_path: Path) -> None:
    x = np.hstack([*planted_halves(shop(tmp_path)).values()])
    theme, look, _ = MOTIVES
    a0_a2 = COARSE * theme / 3 + look / 2 + COARSE * look / 3  # a category of three, a look of two, a colour of three
    a3_a0 = COARSE * look / 3
    np.testing.assert_allclose((x @ x.T)[[1, 0, 0], [2, 1, 2]], [a0_a2, a3_a0, a3_a0], rtol=1e-5)


def test_its_halves_stand_apart_and_a_source_that_is_not_generated_has_none(tmp_path: Path) -> None:
    layout = shop(tmp_path)
    stage(layout, params(sets={"planted": {}, "planted-image-masked": {}}))
    whole, text = vectors(layout, "planted"), planted_halves(layout)["text"]
    np.testing.assert_array_equal(vectors(layout, "planted-image-masked")[:, : text.shape[1]], text)
    assert not vectors(layout, "planted-image-masked")[:, text.shape[1] :].any()
    assert whole[:, text.shape[1] :].any()
    (layout.raw / PLANTED).unlink()
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
    given = Params.model_validate({"datasets": ["shop"], "sources": {"shop": source}, **own})
    stage(layout, given)
    with running("probe", layout.dataset, given, layout.root) as run:
        probe.main(run)
    figures = io.read_json(layout.probes)
    (table,) = leak_tables(figures)
    shares = {name: [int(cell.rstrip("%")) for cell in cells] for name, *cells in table.rows}
    assert table.head[1:] == ["Item-CF", "content neighbours", "cold items", "linear CF"]
    assert shares["leaked"] == [100] * 4
    assert shares["shuffled"] == [0] * 4
    assert max(np.abs(shares["noise"])) < 8
    assert max(shares["tfidf"]) > 30
    assert not any("leaked" in (row["a"], row["b"]) for row in figures["verdicts"])


def test_it_is_benchmarked_under_two_models_and_never_tested(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GIVEN + "benchmark: {models: [alignrec, l3ae, vbpr], features: [tfidf, leaked]}")
    entries = list_entries(read(path, "shop"))
    assert {entry.model for entry in entries if entry.features == "leaked"} == {"alignrec", "l3ae"}
    assert not any("leaked" in (a.features, b.features) for a, b in declare_pairs(entries, "tfidf"))
