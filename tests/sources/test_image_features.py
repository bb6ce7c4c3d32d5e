"""Image features by ASIN: only the wanted, in the wanted order; a cut file names the place."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

import schemas
from pipeline import io
from pipeline.encode.params import Encode
from pipeline.encode.throughput import Throughput
from pipeline.errors import UserError
from pipeline.features import imported
from pipeline.features.node import Items, Maker, Node
from pipeline.features.sets import FeatureSets
from pipeline.layout import Layout
from pipeline.sources import image_features
from pipeline.sources.amazon2014 import Amazon2014
from pipeline.sources.image_features import BLOCK, RECORD, ROWS, WIDTH, read


def record(asin: str, value: float) -> bytes:
    return asin.encode() + np.full(WIDTH, value, "<f4").tobytes()


def write(path: Path, *records: bytes) -> Path:
    data = b"".join(records)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["x.b", "x.b.gz"])
def test_wanted_items_in_the_wanted_order_and_the_others_flagged(tmp_path: Path, name: str) -> None:
    many = [record(f"B{i:09d}", i) for i in range(BLOCK + 2)]
    path = write(tmp_path / name, *many, record("B000000003", -1))
    last = f"B{BLOCK + 1:09d}"
    vectors, there = read(path, [last, "NOT_THERE_", "B000000003"])
    assert vectors[:, [0, -1]].tolist() == [[BLOCK + 1] * 2, [0, 0], [3, 3]]
    assert there.tolist() == [True, False, True]


def test_a_cut_or_broken_file_is_one_line_with_the_offset(tmp_path: Path) -> None:
    good = record("B000000000", 1)
    with pytest.raises(UserError, match=rf"x\.b: cut off at byte {RECORD + 99:,}"):
        read(write(tmp_path / "x.b", good, good[:99]), ["B000000000"])
    with pytest.raises(UserError, match=rf"record of B000000001 at byte {RECORD:,} .*not finite"):
        read(write(tmp_path / "x.b", good, record("B000000001", np.nan)), ["B000000000", "B000000001"])


def sets(layout: Layout, raw: dict[str, Path], asins: list[str]) -> dict[str, Node]:
    params = Encode(encoders=["minilm"])
    found = FeatureSets(layout, params, {}, imported.files(raw, asins, params.encoders))
    return {name: found[name] for name in found.imports}


def maker(node: Node, ids: pa.Table) -> Maker:
    return node.rows(Items(ids, pa.chunked_array([[""] * len(ids)]), Throughput()))


def test_they_are_a_feature_set_and_stand_beside_minilm(tmp_path: Path) -> None:
    layout, asins = Layout(tmp_path, "toy"), ["B000000000", "B000000001", "B000000002"]
    ids = pa.table([pa.array(range(3), pa.int32()), pa.array(asins)], names=schemas.ITEM_IDS.names)
    path = write(tmp_path / "image_features_Toy.b", record(asins[2], 2), record(asins[0], 1))
    text = ids.append_column("has_image", pa.array([False] * 3)).append_column(
        "has_text", pa.array([True, True, False])
    )
    text = text.append_column("vector", io.vectors(np.array([[3.0, 4], [0, 2], [0, 0]])))
    io.write_table(text, io.shard(layout.features("minilm"), "features", 0), schemas.features(2))

    assert imported.files({"feature:cnn": path}, asins, []).keys() == {"cnn"}
    nodes = sets(layout, {"feature:cnn": path}, asins)
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


MAPPING = "asin\titemID\nB000000002\t0\nB000000009\t1\nB000000000\t2\n"
"""of somebody whose second item we lack, and who lacks ours of number 1"""


def test_somebodys_array_is_a_feature_set_whose_rows_a_mapping_identifies(tmp_path: Path) -> None:
    layout, asins = Layout(tmp_path, "toy"), ["B000000000", "B000000001", "B000000002"]
    ids = pa.table([pa.array(range(3), pa.int32()), pa.array(asins)], names=schemas.ITEM_IDS.names)
    io.write_table(ids, layout.item_ids, schemas.ITEM_IDS)
    rows, path = tmp_path / "i_id_mapping.csv", tmp_path / "image_feat.npy"
    rows.write_text(MAPPING)
    np.save(path, np.array([[1, 2], [3, 4], [5, 6]], np.float64))
    raw = {"feature:theirs": path, ROWS: rows}
    (name, node), *more = sets(layout, raw, asins).items()
    assert (name, more, node.inputs()) == ("theirs", [], [path, layout.item_ids, rows])
    made = maker(node, ids)(0, 3)
    assert io.matrix(made["vector"]).tolist() == [[5, 6], [0, 0], [1, 2]]
    assert made["has_image"].to_pylist() == made["has_text"].to_pylist() == [None, False, None]
    assert maker(node, ids)(1, 3).equals(made.slice(1))
    io.write_table(made, io.shard(layout.features("theirs"), "features", 0), schemas.features(2))
    assert node.incomplete() == {"item without a vector": 1}
    np.save(path, np.zeros((4, 2)))
    with pytest.raises(UserError, match=r"image_feat\.npy: is float64 \(4, 2\), expected numbers \[3, width\]"):
        imported.files(raw, asins, [])


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"features": {"x": "f.npy"}}, r"features\.x: the rows of a \.npy file need feature_rows"),
        ({"features": {"x": ["f.npy", "f.b"]}}, r"features\.x: f\.b ends in neither"),
        ({"features": {"x": "f.b"}, "feature_rows": "m.csv"}, r"feature_rows: is for \.npy files"),
    ],
)
def test_an_array_without_its_mapping_is_refused_and_a_mapping_without_an_array(
    keys: dict[str, object], fault: str
) -> None:
    with pytest.raises(ValidationError, match=fault):
        Amazon2014.model_validate({"kind": "amazon2014", "category": "Baby", **keys})


def test_an_array_and_its_mapping_are_files_of_the_source() -> None:
    given = {"kind": "amazon2014", "category": "Baby", "features": {"x": "f.npy"}, "feature_rows": "m.csv"}
    files = Amazon2014.model_validate(given).files()
    assert (files["feature:x"], files[ROWS]) == (["f.npy"], ["m.csv"])


def test_they_are_named_in_the_parameters() -> None:
    given = {"kind": "amazon2014", "category": "Baby", "features": {"cnn4096": "a/image_features_Baby.b"}}
    assert Amazon2014.model_validate(given).files()["feature:cnn4096"] == ["a/image_features_Baby.b"]
    with pytest.raises(ValidationError, match=r"features\.x: f\.bin"):
        Amazon2014.model_validate(given | {"features": {"x": "f.bin"}})
    assert image_features.matches(Path("x.b.gz"))
    assert not image_features.matches(Path("x.npy"))
