"""The Python of docs/python.md and of the README runs as written."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from environments import Script, executed, scripts
from pyarrow import csv
from shop import tastes, toy

import alignrec
from alignrec.pipeline import io
from alignrec.pipeline.runtime.layout import Layout

DOCS = Path(alignrec.__file__).parent.parent / "docs"
PAGE = (DOCS / "python.md").read_text()
SCRIPTS = scripts(PAGE)
README = (DOCS.parent / "README.md").read_text()


@pytest.fixture(scope="module")
def beside(layout: Layout, interactions: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release, interactions and an image, as docs/python.md assumes."""
    folder = tmp_path_factory.mktemp("beside")
    tastes.write_release(folder / "release", layout, {"beit3": io.shard(layout.features("f"), "features", 0)})
    csv.write_csv(interactions, folder / "interactions.csv")
    (folder / "photo.jpg").write_bytes(toy.jpeg((220, 40, 40)))
    return folder


def script(call: str) -> Script:
    (found,) = (script for script in SCRIPTS if f"alignrec.{call}(" in script.code.partition("\n\n")[2])
    assert len(found.code.strip().splitlines()) <= 12, "ten lines each"
    return found


def test_the_readme_reads_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads the embedded release, in an empty folder."""
    (readme,) = scripts(README)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vector, x = executed(readme, tmp_path, "vector", "x")
    assert np.array_equal(vector, x[0])


def test_read(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = ("titles.to_pylist()", "asin", "same", "x", "neighbours.nnz", "scores.shape")
    titles, asin, same, x, edges, shape = executed(SCRIPTS[0], beside, *values)
    assert "release.graph" in SCRIPTS[0].code
    assert titles == tastes.TITLES
    assert np.array_equal(same, x[0])
    assert (asin, edges, shape) == ("i0", 4, (tastes.ITEMS,))
    assert capsys.readouterr().out.startswith("<Release shop 0.1.0: 50 items, 60 users, features beit3> users=60")


def test_probe(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hit, probes = executed(script("probe"), beside, "hit", "table['probe'].to_pylist()")
    assert 0.5 < hit <= 1
    assert set(probes) == {"zero_shot", "item_cf", "content_knn"}
    assert "shuffled" in capsys.readouterr().out


def test_fit(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score, product = executed(script("fit"), beside, "score", "float(users.of('u0') @ items.of(item))")
    assert score == pytest.approx(product)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 5


def test_encode(beside: Path) -> None:
    (y,) = executed(script("encoder"), beside, "y")
    assert np.all(np.abs(y).sum(axis=1) > 0)


def test_each_block_has_a_test() -> None:
    called = [re.findall(r"alignrec\.(\w+)\(", script.code)[-1] for script in SCRIPTS]
    assert called == ["load", "encoder", "probe", "fit"]
