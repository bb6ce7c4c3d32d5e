"""A release is read by the tools that people have, as its card says."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
import toy

import schemas
from pipeline import io
from pipeline.release import croissant, manifest
from pipeline.run import running
from stages import publish

EMPTY = 1
"""the item without content: its vector has no direction"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose feature set beit3 has two files and a row of zeros."""
    layout = toy.outputs(tmp_path_factory.mktemp("made"))
    whole = io.read_features(layout.features("beit3"))
    x = io.matrix(whole["vector"]).copy()
    x[EMPTY] = 0
    whole = whole.set_column(whole.column_names.index("vector"), whole.schema.field("vector"), io.vectors(x))
    for i, part in enumerate((whole.slice(0, 4), whole.slice(4))):
        io.write_table(part, io.shard(layout.features("beit3"), "features", i), schemas.features(toy.WIDTH))
    with running("publish", "shop", toy.PARAMS, layout.root) as run:
        publish.main(run)
    return layout.release


@pytest.fixture(scope="module")
def x(release: Path) -> np.ndarray:
    return io.matrix(io.read_features(release / "features/beit3")["vector"])


def blocks(release: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (release / "README.md").read_text(), re.DOTALL)


def nearest(x: np.ndarray, item: int) -> list[tuple[str, float]]:
    rows = np.flatnonzero(x.any(axis=1))
    unit = x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True)
    cosine = unit @ (x[item] / np.linalg.norm(x[item]))
    return [(f"A{rows[i]}", float(cosine[i])) for i in np.argsort(-cosine)[:5]]


def test_the_cards_python_reads_the_features(release: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(release)
    examples = blocks(release, "python")
    assert len(examples) == 2  # pyarrow, pandas
    for code in examples:
        names: dict = {}
        exec(code, names)
        assert np.array_equal(names["x"], x)
        assert list(names["ids"]) == list(range(toy.ITEMS)) or names["ids"].to_pylist() == list(range(toy.ITEMS))


def test_the_cards_cosine_query_runs_in_duckdb(release: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(release)
    (query,) = blocks(release, "sql")
    assert "item_id = 7" in query
    rows = duckdb.sql(query.replace("item_id = 7", "item_id = 3")).fetchall()
    expected = nearest(x, 3)
    assert [asin for asin, _ in rows] == [asin for asin, _ in expected]
    assert np.allclose([c for _, c in rows], [c for _, c in expected], atol=1e-6)


def test_pyarrow_reads_every_table_with_its_documentation(release: Path) -> None:
    for file in manifest.load(release).files:
        if file.table:
            table = pa.dataset.dataset(release / file.path).to_table()
            assert table.num_rows == file.rows
            assert all(f.metadata and f.metadata[b"doc"] for f in table.schema)


def test_polars_reads_a_feature_set(release: Path, x: np.ndarray) -> None:
    polars = pytest.importorskip("polars")
    table = polars.read_parquet(release / "features/beit3/*.parquet")
    assert table["vector"].dtype == polars.Array(polars.Float32, toy.WIDTH)
    assert np.array_equal(table["vector"].to_numpy(), x)
    assert table["item_id"].to_list() == list(range(toy.ITEMS))


def test_hugging_faces_library_reads_parquet_by_folder(release: Path, x: np.ndarray, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = str(release / "features/beit3")
    loaded = datasets.load_dataset("parquet", data_dir=folder, cache_dir=str(tmp_path), split="train")
    assert np.array_equal(loaded.with_format("numpy")["vector"][:], x)
    assert loaded["asin"][:] == [f"A{i}" for i in range(toy.ITEMS)]


def test_hugging_faces_library_reads_every_configuration_of_the_card(release: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.get_dataset_config_names(str(release))
    assert set(names) == {
        "items", "features-beit3", "features-minilm-cnn", "graph-beit3", "graph-minilm-cnn", "item_embeddings",
        "user_embeddings", "interactions", "users",
    }  # fmt: skip
    rows = {n: len(datasets.load_dataset(str(release), n, cache_dir=str(tmp_path), split="train")) for n in names}
    assert rows["features-beit3"] == rows["items"] == toy.ITEMS
    assert rows["user_embeddings"] == toy.USERS
    assert rows["graph-beit3"] == toy.ITEMS * 4


@pytest.mark.filterwarnings("ignore::Warning")  # the library's own, of its dependencies
def test_croissants_own_library_finds_no_fault_and_reads_every_record(
    release: Path, x: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(release / "croissant.json")
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    # a date would make two equal runs differ
    assert all(w.count("[Metadata") == 1 and "datePublished" in w for w in warnings), warnings
    records = {r.uuid: list(dataset.records(r.uuid)) for r in dataset.metadata.record_sets}
    tables = [f for f in manifest.load(release).files if f.table]
    assert {n: len(r) for n, r in records.items()} == {
        croissant.record_set(f): sum(g.rows or 0 for g in tables if croissant.record_set(g) == croissant.record_set(f))
        for f in tables
    }
    vectors = np.array([r["features-beit3/vector"] for r in records["features-beit3"]], np.float32)
    assert np.array_equal(vectors, x)
    assert [r["items/asin"].decode() for r in records["items"]] == [f"A{i}" for i in range(toy.ITEMS)]


def test_croissant_lists_every_file_with_its_hash_and_every_column_with_its_meaning(release: Path) -> None:
    described = json.loads((release / "croissant.json").read_text())
    listed = {f["contentUrl"]: f["sha256"] for f in described["distribution"] if f["@type"] == "cr:FileObject"}
    rest = ("README.md", croissant.NAME)
    assert listed == {f.path: f.sha256 for f in manifest.load(release).files if f.path not in rest}
    fields = [f for r in described["recordSet"] for f in r["field"]]
    assert all(f["description"] for f in fields)
    vector = next(f for f in fields if f["@id"] == "features-beit3/vector")
    assert (vector["isArray"], vector["arrayShape"], vector["dataType"]) == (True, str(toy.WIDTH), "sc:Float")
    assert described["license"] == "https://creativecommons.org/licenses/by-sa/4.0/"
