"""The Python of docs/exports.md, semantic-ids.md and cold-items.md runs as written, each library by itself."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import alignrec
from environments import LIBRARIES, executed, scripts
from shop import releases

import alignrec as api
from alignrec.pipeline import io
from alignrec.pipeline.runtime.code import ROOT

COLD = {script.library: script for script in scripts((ROOT / "docs/cold-items.md").read_text())}
ATLAS, UNISREC, CORNAC = scripts((ROOT / "docs/exports.md").read_text())
(CODED,) = scripts((ROOT / "docs/semantic-ids.md").read_text())
NEW = 6  # items that no user has
USER = 7
USERS = 20  # of Cornac's
LEVELS, CODES = 3, 64


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "release"
    assert alignrec("fetch", "sample", "--to", folder).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def cold(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands of docs/cold-items.md write, x.npy and l3ae.py."""
    folder = tmp_path_factory.mktemp("cold")
    options = ("--format", "npy", "--features", "linear", "--to", folder / "export")
    assert alignrec("export", release, *options).exit_code == 0
    known = np.load(folder / "export/linear.npy")
    rng = np.random.default_rng(0)
    (folder / "new").mkdir()
    table = pa.table({"vector": io.vectors(rng.normal(size=(NEW, known.shape[1])))})
    pq.write_table(table, folder / "new/vectors.parquet")
    executed(COLD["alignrec"], folder)
    (folder / "l3ae.py").write_text(COLD["numpy"].code)
    return folder


def test_l3ae_scores_new_items(cold: Path) -> None:
    new, weights = executed(COLD["numpy"], cold, "cold.tolist()", "l3ae()[-6:]")
    assert new[-NEW:] == list(range(weights.shape[1]))[-NEW:]
    assert np.abs(weights).sum(axis=1).min() > 0


@pytest.mark.parametrize("library", ["lenskit", "rectools", "implicit"])
def test_a_library_ranks_cold_items_as_l3ae_scores_them(cold: Path, library: str) -> None:
    items, scores = executed(COLD[library], cold, "[*map(int, items)]", "[*map(float, scores)]")
    new, expected = executed(COLD["numpy"], cold, "cold", f"(train[{USER}] @ l3ae())[0]")
    best = new[np.argsort(-expected[new])]
    assert items[:5] == best[:5].tolist()
    assert np.allclose(scores[:5], expected[best[:5]], rtol=1e-3)


def test_cornac_reads_an_export_and_codes(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    assert alignrec("export", release, "--format", "cornac", "--to", folder).exit_code == 0
    for name in ("train", "valid", "test"):  # few users, as all take an hour
        lines = (folder / f"{name}.tsv").read_text().splitlines(keepends=True)
        kept = [line for line in lines if int(line.partition("\t")[0]) < USERS]
        (folder / f"{name}.tsv").write_text("".join(kept))
    items = io.rows([release / "items.parquet"])
    codes = np.random.default_rng(0).integers(CODES, size=(items, LEVELS))
    column = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel(), pa.int16()), LEVELS)
    pq.write_table(pa.table({"codes": column}), folder / "codes.parquet")
    rows, users = executed(CORNAC, folder, "len(rows)", "len({user for user, _, _ in test})")
    assert (rows, users) == (items, USERS)


def test_unisrec_learns_from_an_export(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    options = ("--format", "npy", "--features", "linear", "--to", folder)
    assert alignrec("export", release, *options).exit_code == 0
    lines = (folder / "interactions.csv").read_text().splitlines(keepends=True)
    few = [line for line in lines[1:] if int(line.partition(",")[0]) < USERS]
    (folder / "interactions.csv").write_text("".join([lines[0], *few]))
    fitted, shape = executed(UNISREC, folder, "model.is_fitted", "tuple(table.shape)")
    x = np.load(folder / "linear.npy")
    assert fitted
    assert shape == (len(x) + 1, x.shape[1])


def test_a_table_for_a_map_has_every_item_and_its_vector(release: Path) -> None:
    titles, x = executed(ATLAS, release.parent, "items['title'].tolist()", "[*items['vector']]")
    released = api.load(release)
    assert titles == released.items["title"].to_pylist()
    assert np.array_equal(x, released.features["linear"])


def test_codes_name_items(tmp_path: Path) -> None:
    folder = releases.coded(tmp_path / "outputs").release
    shutil.copytree(folder, tmp_path / "release")
    (item_of,) = executed(CODED, tmp_path, "item_of")
    rows = api.load(folder).semantic_ids("beit3").to_pylist()
    assert item_of == {(*row["codes"], row["suffix"]): row["asin"] for row in rows if row["codes"]}
    assert len(item_of) > 1


def test_each_block_has_a_test() -> None:
    assert [*COLD] == ["alignrec", "numpy", "lenskit", "rectools", "implicit"]
    assert [script.library for script in (ATLAS, UNISREC, CORNAC)] == ["pandas", "rectools", "cornac"]
    assert f"{LIBRARIES}=" in (ROOT / "Makefile").read_text()
