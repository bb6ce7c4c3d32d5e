"""A release is readable by common tools, as its card says."""

import re
from pathlib import Path

import numpy as np
import pytest
import releases
import toy

from alignrec import schemas
from alignrec.pipeline import io

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
    return releases.published(layout).release


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


def test_the_cards_python_runs(release: Path, x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.chdir(release)
    examples = blocks(release, "python")
    assert len(examples) == 3  # datasets, pyarrow, pandas
    for code in examples:
        names: dict = {}
        exec(code, names)
        assert np.array_equal(names["x"], x)
        assert np.array_equal(np.asarray(names["ids"]), np.arange(toy.ITEMS))


def test_the_cards_cosine_query_runs_in_duckdb(release: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(release)
    (query,) = blocks(release, "sql")
    assert "item_id = 7" in query
    rows = duckdb.sql(query.replace("item_id = 7", "item_id = 3")).fetchall()
    expected = nearest(x, 3)
    assert [asin for asin, _ in rows] == [asin for asin, _ in expected]
    assert np.allclose([c for _, c in rows], [c for _, c in expected], atol=1e-6)


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
