"""Feature files of a source are matched, flagged and counted; and which parameters name them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from commands import alignrec, run_stages
from shop import featured, toy

from alignrec import schemas
from alignrec.commands.params import Params
from alignrec.pipeline import io
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.vectors.records import RECORD_WIDTH
from tests.vectors import formats
from tests.vectors.test_formats import record, write


def test_they_are_a_feature_set_and_stand_beside_minilm(tmp_path: Path) -> None:
    layout = toy.outputs(tmp_path)
    asins = [f"B{i:09}" for i in range(toy.ITEMS)]
    io.write_table(pa.table({"item_id": toy.ITEM_ID, "asin": asins}), layout.item_ids, schemas.ITEM_IDS)
    layout.raw.mkdir(exist_ok=True)
    path = write(layout.raw / "image_features_Toy.b", record(asins[2], 2), record(asins[0], 1))
    io.write_json(layout.sources, [{"role": "feature:ours", "name": path.name}])
    given = featured.params("minilm")
    source = {"kind": "mmrec", "interactions": "x.inter", "features": {"ours": "image_features_Toy.b"}}
    made = featured.stage(layout, Params.model_validate(given.model_dump() | {"sources": {"shop": source}}))
    assert {"ours", "minilm", "minilm-ours"} <= made.keys()
    pictured = [True, False, True, False, False, False]
    for name in ("ours", "minilm-ours"):
        assert io.read_features(layout.features(name))["has_image"].to_pylist() == pictured
    joined, text = featured.vectors(layout, "minilm-ours"), featured.vectors(layout, "minilm")
    assert joined.shape[1] == text.shape[1] + RECORD_WIDTH
    np.testing.assert_allclose(joined[:, : text.shape[1]], unit_rows(text)[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(joined[:, text.shape[1] :], axis=1), pictured, atol=1e-5)
    assert io.read_json(layout.run_record("combine"))["drops"] == {"ours: item without a vector": 4}


ITEMS = 20
ASINS = [f"item {i}" for i in range(ITEMS)]
VECTORS = np.random.default_rng(0).standard_normal((ITEMS, 3)).astype(np.float32)


def shop(folder: Path, features: dict[str, Any], **source: str) -> Layout:
    """Write a dataset of ten users, whose source has feature files."""
    rows = [f"u{u},{ASINS[(3 * u + 7 * n) % ITEMS]},{1_600_000_000 + n}" for u in range(10) for n in range(8)]
    (folder / "ratings.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    (folder / "items.jsonl").write_text("".join(json.dumps({"item": a, "title": a}) + "\n" for a in ASINS))
    given = {"kind": "tabular", "interactions": "ratings.csv", "items": "items.jsonl", "features": features, **source}
    params = {
        "datasets": ["shop"], "sources": {"shop": given}, "interactions": {"user_core": 1, "item_core": 1},
        "benchmark": {"ks": [5]}, "encode": {"encoders": ["minilm"]},
        "beit3": {"sets": []}, "combine": {"sets": {}, "controls": ["random"]}, "train": {"features": "a"},
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return Layout(folder / "outputs", "shop")


def test_files_of_any_format_come_with_a_source_and_those_of_one_name_are_told_apart_by_folder(tmp_path: Path) -> None:
    ids, lacking = [*ASINS[::-1]], 12
    ids[ITEMS - 1 - lacking] = "someone's"
    turned = VECTORS[::-1].copy()
    mapping = formats.mapping(tmp_path, ids)
    features: dict[str, Any] = {"pt": str(formats.tensor(tmp_path, turned))}
    for name in ("baby", "sports"):
        (tmp_path / name).mkdir()
        features[name] = str(formats.npy(tmp_path / name, turned))
    for name in ("Ducho's folder", "JSON lines", "Parquet in a folder"):
        (tmp_path / name).mkdir()
        features[name[:2].lower()] = str(formats.IDENTIFIED[name](tmp_path / name, ids, turned))
    layout = shop(tmp_path, features | {"a": features["baby"]}, feature_rows=str(mapping))
    given = yaml.safe_load((tmp_path / "params.yaml").read_text())
    del given["sources"]["shop"]["features"]["a"]
    given["train"]["features"] = "baby"
    given["combine"]["sets"] = {"white": {"kind": "whitened", "of": "baby", "width": 2}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    run_stages("shop", "download", "interactions", "items", cwd=tmp_path)
    names = {row["role"]: row["name"] for row in io.read_json(layout.sources)}
    assert names["feature:baby"] == "baby-image_feat.npy"
    assert names["feature:sports"] == "sports-image_feat.npy"
    assert (names["feature:du"], names["feature:pa"]) == ("avg_pool.zip", "shards.parquet")
    noted = json.loads(layout.run_record("items").read_text())["notes"]["features"]
    for name in features:
        assert noted[name]["rows_of_no_item"] == noted[name]["items_without_a_row"] == 1, name
        assert noted[name]["such_as"] == '"someone\'s"', name
    run_stages("shop", "images", "encode", "combine", cwd=tmp_path)
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    expected = np.array([VECTORS[ASINS.index(a)] if a != ASINS[lacking] else np.zeros(3) for a in asins], np.float32)
    for name in features:
        assert np.array_equal(featured.vectors(layout, name), expected), name
    assert io.width(layout.features("white")) == 2
    drops = json.loads(layout.run_record("combine").read_text())["drops"]
    assert {drops[f"{name}: item without a vector"] for name in features} == {1}


def test_a_file_that_does_not_fit_is_refused_before_images_are_fetched(tmp_path: Path) -> None:
    shop(tmp_path, {"a": str(formats.jsonl(tmp_path, ["X1", "X2"], VECTORS[:2]))})
    run_stages("shop", "download", "interactions", cwd=tmp_path)
    done = alignrec("items", "shop", cwd=tmp_path)
    assert done.exit_code == 1
    assert "theirs.jsonl: none of its 2 rows is of one of the 20 items" in done.output.splitlines()[-1]
