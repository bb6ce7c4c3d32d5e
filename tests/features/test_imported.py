"""Feature files that come with a source: matched, flagged, counted; and which parameters name them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from commands import alignrec

import schemas
from pipeline import io
from pipeline.encode.params import Encode
from pipeline.features import imported
from pipeline.features.node import Items, Maker, Node
from pipeline.features.sets import FeatureSets
from pipeline.layout import Layout
from pipeline.vectors.arrays import WIDTH
from tests.vectors import formats
from tests.vectors.test_records import record, write


def listed(layout: Layout, raw: dict[str, Path]) -> Layout:
    """Write sources.json, as the stage download does."""
    rows = [{"role": role, "name": str(path.resolve())} for role, path in raw.items()]
    io.write_json(layout.sources, rows)
    return layout


def sets(layout: Layout, raw: dict[str, Path]) -> dict[str, Node]:
    params = Encode(encoders=["minilm"])
    found = FeatureSets.of(listed(layout, raw), params, {})
    return {name: found[name] for name in found.imports}


def maker(node: Node, ids: pa.Table) -> Maker:
    return node.rows(Items(ids, pa.chunked_array([[""] * len(ids)])))


def test_they_are_a_feature_set_and_stand_beside_minilm(tmp_path: Path) -> None:
    layout, asins = Layout(tmp_path, "toy"), ["B000000000", "B000000001", "B000000002"]
    ids = pa.table([pa.array(range(3), pa.int32()), pa.array(asins)], names=schemas.ITEM_IDS.names)
    path = write(tmp_path / "image_features_Toy.b", record(asins[2], 2), record(asins[0], 1))
    text = ids.append_column("has_image", pa.array([False] * 3)).append_column(
        "has_text", pa.array([True, True, False])
    )
    text = text.append_column("vector", io.vectors(np.array([[3.0, 4], [0, 2], [0, 0]])))
    io.write_table(text, io.shard(layout.features("minilm"), "features", 0), schemas.features(2))

    assert imported.imports(listed(layout, {"feature:cnn": path}).sources, []).keys() == {"cnn"}
    nodes = sets(layout, {"feature:cnn": path})
    assert nodes.keys() == {"cnn", "minilm-cnn"}
    made = {name: maker(node, ids)(0, 3) for name, node in nodes.items()}
    assert made["cnn"]["has_image"].to_pylist() == made["minilm-cnn"]["has_image"].to_pylist() == [True, False, True]
    assert made["minilm-cnn"]["has_text"].to_pylist() == [True, True, False]
    schemas.check(made["cnn"], schemas.features(WIDTH))
    schemas.check(made["minilm-cnn"], schemas.features(2 + WIDTH))
    joined = io.matrix(made["minilm-cnn"]["vector"])
    np.testing.assert_allclose(joined[:, :2], [[0.6, 0.8], [0, 1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(joined[:, 2:], axis=1), [1, 0, 1], atol=1e-5)
    second = maker(nodes["minilm-cnn"], ids)(1, 3)
    assert second.equals(made["minilm-cnn"].slice(1))


ITEMS = 20
ASINS = [f"item {i}" for i in range(ITEMS)]
VECTORS = np.random.default_rng(0).standard_normal((ITEMS, 3)).astype(np.float32)


def shop(folder: Path, features: dict[str, Any], **source: str) -> Layout:
    """Write a dataset of ten users, whose source has feature files."""
    rows = [f"u{u},{ASINS[(3 * u + 7 * n) % ITEMS]},{n}" for u in range(10) for n in range(8)]
    (folder / "ratings.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    (folder / "items.jsonl").write_text("".join(json.dumps({"item": a, "title": a}) + "\n" for a in ASINS))
    given = {"kind": "tabular", "interactions": "ratings.csv", "items": "items.jsonl", "features": features, **source}
    params = {
        "datasets": ["shop"], "sources": {"shop": given}, "interactions": {"user_core": 1, "item_core": 1},
        "benchmark": {"ks": [5]}, "encode": {"encoders": [], "controls": ["random"]}, "train": {"features": "a"},
    }  # fmt: skip
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return Layout(folder / "outputs", "shop")


def run(folder: Path, *stages: str) -> None:
    for stage in stages:
        done = alignrec(stage, "shop", cwd=folder)
        assert done.exit_code == 0, done.output


def test_files_of_any_format_come_with_a_source_and_those_of_one_name_are_told_apart_by_folder(tmp_path: Path) -> None:
    ids, lacking = [*ASINS[::-1]], 12
    ids[ITEMS - 1 - lacking] = "someone's"
    turned = VECTORS[::-1].copy()
    mapping = formats.mapping(tmp_path, ids)
    features: dict[str, Any] = {"pt": str(formats.tensor(tmp_path, turned))}
    for name in ("baby", "sports"):
        (tmp_path / name).mkdir()
        features[name] = str(formats.npy(tmp_path / name, turned))
    for name in ("M3L's folder", "Ducho's folder", "JSON lines", "Parquet in a folder"):
        (tmp_path / name).mkdir()
        features[name[:2].lower()] = str(formats.IDENTIFIED[name](tmp_path / name, ids, turned))
    layout = shop(tmp_path, features | {"a": features["baby"]}, feature_rows=str(mapping))
    given = yaml.safe_load((tmp_path / "params.yaml").read_text())
    del given["sources"]["shop"]["features"]["a"]
    given["train"]["features"] = "baby"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    run(tmp_path, "download", "interactions", "items")
    names = {row["role"]: row["name"] for row in io.read_json(layout.sources)}
    assert names["feature:baby"] == "baby-image_feat.npy"
    assert names["feature:sports"] == "sports-image_feat.npy"
    assert {names["feature:du"], names["feature:m3"], names["feature:pa"]} == {
        "avg_pool.zip",
        "minilm.zip",
        "shards.parquet",
    }
    noted = json.loads(layout.run_record("items").read_text())["notes"]["features"]
    for name in features:
        assert noted[name]["rows_of_no_item"] == noted[name]["items_without_a_row"] == 1, name
        assert noted[name]["such_as"] == '"someone\'s"', name
    for stage in ("images", "encode"):
        run(tmp_path, stage)
    asins = io.read_table(layout.item_ids, schemas.ITEM_IDS)["asin"].to_pylist()
    expected = np.array([VECTORS[ASINS.index(a)] if a != ASINS[lacking] else np.zeros(3) for a in asins], np.float32)
    for name in features:
        assert np.array_equal(io.matrix(io.read_features(layout.features(name))["vector"]), expected), name
    drops = json.loads(layout.run_record("encode").read_text())["drops"]
    assert {drops[f"{name}: item without a vector"] for name in features} == {1}


def test_a_file_that_does_not_fit_is_refused_before_images_are_fetched(tmp_path: Path) -> None:
    shop(tmp_path, {"a": str(formats.jsonl(tmp_path, ["X1", "X2"], VECTORS[:2]))})
    run(tmp_path, "download", "interactions")
    done = alignrec("items", "shop", cwd=tmp_path)
    assert done.exit_code == 1
    assert "theirs.jsonl: none of its 2 rows is of one of the 20 items" in done.output.splitlines()[-1]
