"""The code of docs/reading.md runs as written."""

import re
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.train import retrieval

READING = (Path(__file__).parent.parent / "docs/reading.md").read_text()
ITEMS, WIDTH = 20, 127  # as wide as beit3 of `sample`: a query may name no width of its own
EMPTY = 11
"""the item without content, whose vector is zero"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", READING, re.DOTALL)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(ITEMS, WIDTH)).astype("f4")
    x[EMPTY] = 0
    return x


@pytest.fixture(scope="module")
def here(x: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    ids, asins = pa.array(range(ITEMS), pa.int32()), [f"A{i}" for i in range(ITEMS)]
    flags = pa.array([i != EMPTY for i in range(ITEMS)])
    table = pa.table({"item_id": ids, "asin": asins, "has_image": flags, "has_text": flags, "vector": io.vectors(x)})
    for i, part in enumerate((table.slice(0, 12), table.slice(12))):
        io.write_table(part, io.shard(folder / "release/features/beit3", "features", i), schemas.features(WIDTH))
    users = pa.table({"user_id": ids, "user": asins, "vector": io.vectors(x)})
    io.write_table(users, folder / "release/embeddings/users.parquet", schemas.user_embeddings(WIDTH))
    faiss.write_index(retrieval.build_flat(x), str(folder / "release/embeddings/items.faiss"))
    return folder


@pytest.mark.parametrize("library", ["pyarrow", "pandas", "polars", "datasets"])
def test_python_reads_features(
    library: str, here: Path, x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip(library)
    if library == "datasets":
        monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.chdir(here)
    label = "Hugging Face" if library == "datasets" else library
    (code,) = [b for b in blocks("python") if b.partition("\n")[0].endswith(f"# {label}")]
    names: dict = {}
    exec(code, names)
    assert np.array_equal(names["x"], x)


@pytest.mark.parametrize(("library", "label"), [("lancedb", "LanceDB"), ("qdrant_client", "Qdrant")])
def test_a_vector_database_finds_the_nearest(
    library: str, label: str, here: Path, x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    (tmp_path / "release").symlink_to(here / "release")
    monkeypatch.chdir(tmp_path)
    (code,) = [b for b in blocks("python") if b.partition("\n")[0].endswith(f"# {label}")]
    names: dict = {}
    exec(code, names)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    wanted = [f"A{i}" for i in np.argsort(-(unit @ unit[7]), kind="stable") if i != 7]
    found = [one["asin"] if library == "lancedb" else one.payload["asin"] for one in names["near"]]
    assert [asin for asin in found if asin != "A7"][:4] == wanted[:4]


def test_duckdb_finds_the_nearest(here: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(here)
    (query,) = blocks("sql")
    length = np.linalg.norm(x, axis=1)
    cosine = np.divide(x @ x[7], length * length[7], out=np.full(ITEMS, -1.0), where=length > 0)
    expected = [(f"A{i}", pytest.approx(float(cosine[i]), abs=1e-6)) for i in np.argsort(-cosine)[:5]]
    assert duckdb.sql(query).fetchall() == expected


def test_faiss_reads_the_index(here: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(here)
    (code,) = [b for b in blocks("python") if "faiss" in b]
    names: dict = {}
    exec(code, names)
    assert np.array_equal(names["items"], np.argsort(-x[:3] @ x.T, axis=1)[:, :10])
