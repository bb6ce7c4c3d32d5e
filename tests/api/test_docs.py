"""The Python of docs/python.md and of the README runs as written."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shops
import toy
from commands import blocks, executed
from pyarrow import csv

import alignrec
from alignrec.pipeline import io
from alignrec.pipeline.runtime.layout import Layout

DOCS = Path(alignrec.__file__).parent.parent / "docs"
PAGE = (DOCS / "python.md").read_text()
BLOCKS = blocks(PAGE, "python")
README = (DOCS.parent / "README.md").read_text()


@pytest.fixture(scope="module")
def beside(layout: Layout, interactions: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release, interactions and an image, as docs/python.md assumes."""
    folder = tmp_path_factory.mktemp("beside")
    shops.write_release(folder / "release", layout, {"beit3": io.shard(layout.features("f"), "features", 0)})
    csv.write_csv(interactions, folder / "interactions.csv")
    (folder / "photo.jpg").write_bytes(toy.jpeg((220, 40, 40)))
    return folder


def block(call: str) -> str:
    (code,) = (code for code in BLOCKS if f"alignrec.{call}(" in code)
    assert len(code.strip().splitlines()) <= 12, "ten lines each"
    return code


def test_the_readme_reads_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the embedded release, in an empty folder."""
    (code,) = blocks(README, "python")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = executed(code, tmp_path)
    assert np.array_equal(names["vector"], names["x"][0])


def test_read(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (code for code in BLOCKS if "release.graph" in code)
    names = executed(code, beside)
    assert list(names["titles"]) == shops.TITLES
    assert np.array_equal(names["same"], names["x"][0])
    assert names["asin"] == "i0"
    assert names["neighbours"].nnz == 4
    assert names["scores"].shape == (shops.ITEMS,)
    assert capsys.readouterr().out.startswith("<Release shop 0.1.0: 50 items, 60 users, features beit3> users=60")


def test_probe_and_fit(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = executed(block("probe"), beside)
    assert 0.5 < names["hit"] <= 1
    assert "shuffled" in capsys.readouterr().out
    assert set(names["table"].probe) == {"zero_shot", "item_cf", "content_knn", "linear_cf"}
    names = executed(block("fit"), beside)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 5
    assert names["score"] == pytest.approx(float(names["users"].of("u0") @ names["items"].of(names["item"])))
    tested = ["load", "encoder", "probe", "fit"]
    assert [re.findall(r"alignrec\.(\w+)\(", code)[-1] for code in BLOCKS] == tested


@pytest.mark.slow
def test_encode(beside: Path) -> None:
    names = executed(block("encoder"), beside)
    assert np.all(np.abs(names["y"]).sum(axis=1) > 0)
