"""The commands of docs/release.md and the code of docs/reading.md and of a release's card run as written."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from commands import alignrec, blocks
from environments import Script, executed, scripts
from PIL import Image
from shop import releases, toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.models.training import retrieval
from alignrec.pipeline.runtime.code import ROOT

TEXT = (ROOT / "docs/release.md").read_text()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release, new items as on the page, and the release's items with images."""
    folder = tmp_path_factory.mktemp("beside")
    layout = releases.with_encoders(folder / "outputs")
    shutil.move(layout.release, folder / "release")
    (folder / "folder").mkdir()
    Image.new("RGB", (50, 50), "red").save(folder / "folder/one.png")
    images = pq.read_table(next(layout.images.glob("images-*.parquet")))["image"].to_pylist()
    for asin, image in enumerate(images):
        if image:
            (folder / f"folder/A{asin}.jpg").write_bytes(image)
    rows = [json.dumps({"asin": f"A{i}", "text": text}) for i, text in enumerate(toy.TITLES)]
    (folder / "items-of-the-release.jsonl").write_text("\n".join(rows))
    (folder / "items.jsonl").write_text(blocks(TEXT, "json")[0])
    (folder / "products.csv").write_text("nr,name\nn3,blue car\n")
    shutil.rmtree(folder / "outputs")
    return folder


def test_the_commands_run_in_their_order(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(beside)
    commands = [line for block in blocks(TEXT, "bash") for line in block.splitlines() if line]
    commands.remove(zipping := next(command for command in commands if command.startswith("python -m zipfile")))
    assert {shlex.split(command)[1] for command in commands} == {
        *("fetch", "verify", "export", "compare", "diff", "embed")
    }
    zipfile.main(shlex.split(zipping)[3:])
    for command in commands:
        result = alignrec(*shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}: {result.output}"
    assert pq.read_table("new").num_rows == 2
    assert pq.read_table("named")["nr"].to_pylist() == ["n3"]
    assert "attested; text, image and vector of 6 rows agree" in result.output


def test_the_workflow_attaches_a_release_that_is_fetched(beside: Path, tmp_path: Path) -> None:
    """The steps run as written; the last one needs a server."""
    steps = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["sample"]["steps"]
    _, zipping, fetching, uploading = [step["run"] for step in steps if "run" in step]
    shutil.copytree(beside / "release", tmp_path / "outputs/publish/sample/release")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    here = {"GITHUB_REF_NAME": "v0.1.0", "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}/.venv/bin:{os.environ['PATH']}"}
    for command in (zipping, fetching):
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=os.environ | here, check=True, capture_output=True)
    assert (tmp_path / "checked/manifest.json").read_bytes() == (beside / "release/manifest.json").read_bytes()
    assert [path.name for path in tmp_path.glob(uploading.split()[-1])] == ["sample-0.1.0.zip"]


def test_every_file_of_a_release_is_described(beside: Path) -> None:
    described = re.findall(r"`([\w.<>/]+?)`", TEXT.split("## A light install")[0])
    folders = {name.partition("/")[0] for name in described}
    assert {path.name for path in (beside / "release").iterdir()} <= folders


# --- code of a card


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
    toy.write_set(layout.features("beit3"), whole, rows=4)
    return releases.published(layout).release


@pytest.fixture(scope="module")
def x(release: Path) -> np.ndarray:
    return io.matrix(io.read_features(release / "features/beit3")["vector"])


def card_blocks(release: Path, language: str) -> list[str]:
    return blocks((release / "README.md").read_text(), language)


def nearest(x: np.ndarray, item: int) -> list[tuple[str, float]]:
    rows = np.flatnonzero(x.any(axis=1))
    unit = x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True)
    cosine = unit @ (x[item] / np.linalg.norm(x[item]))
    return [(f"A{rows[i]}", float(cosine[i])) for i in np.argsort(-cosine)[:5]]


def test_the_cards_python_runs(release: Path, x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    needs = [("alignrec",), ("datasets",), ("pyarrow", "numpy"), ("pandas", "pyarrow")]
    for code, packages in zip(card_blocks(release, "python"), needs, strict=True):
        vectors, ids = executed(Script(code, packages), release, "x", "[int(i) for i in ids]")
        assert np.array_equal(vectors, x)
        assert ids == list(range(toy.ITEMS))


def test_the_cards_cosine_query_runs_in_duckdb(release: Path, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(release)
    (query,) = card_blocks(release, "sql")
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


# --- code of docs/reading.md

READING = (ROOT / "docs/reading.md").read_text()
ROWS, WIDTH = 20, 127  # as wide as beit3 of `sample`: a query may name no width of its own
WIDE = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype("f4")
WIDE[11] = 0  # an item without content


SCRIPTS = {script.library: script for script in scripts(READING)}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with files of a release."""
    features = toy.feature_table(WIDE, has_image=WIDE.any(axis=1), has_text=WIDE.any(axis=1))
    toy.write_set(tmp_path / "release/features/beit3", features, rows=12)
    users = features.select(["item_id", "asin", "vector"]).rename_columns(["user_id", "user", "vector"])
    io.write_table(users, tmp_path / "release/embeddings/users.parquet", schemas.user_embeddings(WIDTH))
    faiss.write_index(retrieval.build_flat([WIDE], WIDTH), str(tmp_path / "release/embeddings/items.faiss"))
    return tmp_path


READERS = ["pyarrow", "pandas", "polars", "datasets"]
DATABASES = {
    "lancedb": "[row['asin'] for row in near]",
    "qdrant-client": "[point.payload['asin'] for point in near]",
    "pgvector": "[asin for asin, in near]",
}
"""library -> the identifiers that it finds"""


def test_each_block_has_a_test() -> None:
    assert sorted(SCRIPTS) == sorted([*READERS, *DATABASES, "mlcroissant", "faiss-cpu"])
    assert len(SCRIPTS) == len(blocks(READING, "python"))


@pytest.mark.parametrize("library", READERS)
def test_python_reads_features(library: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(here))
    (x,) = executed(SCRIPTS[library], here, "x")
    assert np.array_equal(x, WIDE)


def test_croissant_names_the_features(beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path))
    (x,) = executed(SCRIPTS["mlcroissant"], beside, "x")
    assert np.array_equal(x, io.matrix(io.read_features(beside / "release/features/beit3")["vector"]))


@pytest.mark.parametrize("library", DATABASES)
def test_a_vector_database_finds_the_nearest(library: str, here: Path) -> None:
    if library == "pgvector" and "PGHOST" not in os.environ:
        pytest.skip("PGHOST names no server of PostgreSQL")
    (found,) = executed(SCRIPTS[library], here, DATABASES[library])
    assert [asin for asin in found if asin != "A7"][:4] == [asin for asin, _ in nearest(WIDE, 7)][1:]


def test_duckdb_finds_the_nearest(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    duckdb = pytest.importorskip("duckdb")
    monkeypatch.chdir(here)
    (query,) = blocks(READING, "sql")
    expected = [(asin, pytest.approx(cosine, abs=1e-6)) for asin, cosine in nearest(WIDE, 7)]
    assert duckdb.sql(query).fetchall() == expected


def test_faiss_reads_the_index(here: Path) -> None:
    (items,) = executed(SCRIPTS["faiss-cpu"], here, "items")
    assert np.array_equal(items, np.argsort(-WIDE[:3] @ WIDE.T, axis=1)[:, :10])
