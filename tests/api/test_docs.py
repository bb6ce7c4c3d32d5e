"""docs/python.md, docs/tour.ipynb and the README's Python run as they are written."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shops
import toy
from PIL import Image
from pyarrow import csv
from scripts import script
from shop_release import TITLES
from shop_release import write as write_release

import alignrec
import schemas
from pipeline import io
from pipeline.layout import Layout

DOCS = Path(alignrec.__file__).parent.parent / "docs"
PAGE = (DOCS / "python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
README = (DOCS.parent / "README.md").read_text()
TOUR = json.loads((DOCS / "tour.ipynb").read_text())
RUNNER = script("tour")
CELLS = ["".join(cell["source"]) for cell in TOUR["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def beside(layout: Layout, interactions: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release, interactions and an image, as the page says."""
    folder = tmp_path_factory.mktemp("beside")
    write_release(folder / "release", layout, {"beit3": io.shard(layout.features("f"), "features", 0)})
    csv.write_csv(interactions, folder / "interactions.csv")
    (folder / "photo.jpg").write_bytes(toy.jpeg((220, 40, 40)))
    return folder


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def block(call: str) -> str:
    (code,) = (code for code in BLOCKS if f"alignrec.{call}(" in code)
    assert len(code.strip().splitlines()) <= 12, "ten lines each"
    return code


def test_the_readme_reads_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the package carries, in an empty folder."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = run(code, tmp_path, monkeypatch)
    assert np.array_equal(names["vector"], names["x"][0])


def test_read(beside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (code for code in BLOCKS if "release.graph" in code)
    names = run(code, beside, monkeypatch)
    assert list(names["titles"]) == TITLES
    assert np.array_equal(names["same"], names["x"][0])
    assert names["asin"] == "i0"
    assert names["neighbours"].nnz == 4
    assert names["scores"].shape == (shops.ITEMS,)
    assert capsys.readouterr().out.startswith("<Release shop 0.1.0: 50 items, 60 users, features beit3> users=60")


def test_probe_and_fit(beside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(block("probe"), beside, monkeypatch)
    assert 0.5 < names["hit"] <= 1
    assert "shuffled" in capsys.readouterr().out
    assert set(names["table"].probe) == {"zero_shot", "item_cf", "content_knn", "linear_cf"}
    names = run(block("fit"), beside, monkeypatch)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 5
    assert names["score"] == pytest.approx(float(names["users"].of("u0") @ names["items"].of(names["item"])))
    tested = ["load", "SemanticIds", "encoder", "probe", "fit"]
    assert [re.findall(r"alignrec\.(\w+)\(", code)[-1] for code in BLOCKS] == tested


@pytest.mark.slow
def test_encode_and_the_tour(
    beside: Path, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test, as loading the encoder takes seconds: the tour's release has features that it made."""
    names = run(block("encoder"), beside, monkeypatch)
    assert np.all(np.abs(names["y"]).sum(axis=1) > 0)
    images = [Image.new("RGB", (64, 64), "red" if i % 2 == 0 else "blue") for i in range(shops.ITEMS)]
    vectors = names["encoder"].encode(images, TITLES)
    paths = {
        "beit3": io.shard(layout.features("f"), "features", 0),
        "minilm-cnn": io.shard(tmp_path / "minilm-cnn", "features", 0),
    }
    like = io.read_table(paths["beit3"], schemas.features(shops.WIDTH))
    table = like.set_column(like.schema.get_field_index("vector"), "vector", io.vectors(vectors))
    io.write_table(table, paths["minilm-cnn"], schemas.features(vectors.shape[1]))
    write_release(tmp_path / "outputs/publish/sample/release", layout, paths)
    target = Layout(tmp_path / "outputs", "sample").interactions
    io.write_table(io.read_table(layout.interactions, schemas.INTERACTIONS), target, schemas.INTERACTIONS)
    (tmp_path / "docs").mkdir()
    capsys.readouterr()
    names = run("\n".join(CELLS), tmp_path / "docs", monkeypatch)
    assert TITLES[int(np.argmax(names["cosines"]))].startswith("red"), "the drawing is a red ball"
    shown = capsys.readouterr().out
    for word in ("minilm-cnn ['red thing 0'", "content_knn recall@20", "AlignRec ", "LightGCN ", "recommended: ['"):
        assert word in shown


def test_the_notebook_is_kept_with_the_outputs_of_its_code() -> None:
    """`make figures` runs it again."""
    assert (TOUR["nbformat"], TOUR["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in TOUR["cells"]}) == len(TOUR["cells"])
    assert TOUR["metadata"]["code"] == RUNNER.code(TOUR)
    assert [cell["execution_count"] for cell in RUNNER.coded(TOUR)] == [*range(1, len(CELLS) + 1)]
    assert all(cell["outputs"] for cell in RUNNER.coded(TOUR))
    printed, value = RUNNER.outputs("print('a')\nprint('b')\n[2] * 2", {}, 2)
    assert printed == {"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]}
    assert (value["output_type"], value["data"]) == ("execute_result", {"text/plain": ["[2, 2]"]})
