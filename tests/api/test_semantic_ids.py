"""`Release.semantic_ids`: codes as arrays, codebooks that code and decode, and the same after saving and loading."""

import re
import shutil
from pathlib import Path

import coded
import numpy as np
import pytest
import toy
from safetensors.numpy import load_file

import alignrec
from pipeline.layout import Layout
from pipeline.ops.rows import unit_rows
from pipeline.semantic_ids.files import NAMES

PAGE = (Path(alignrec.__file__).parent.parent / "docs/python.md").read_text()


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = toy.outputs(tmp_path_factory.mktemp("coded"))
    x = np.random.default_rng(1).normal(size=(toy.ITEMS, toy.WIDTH))
    x[4] = 0
    x[5] = 3 * x[0]
    toy.write_features(layout, "beit3", x, [f"A{i}" for i in range(toy.ITEMS)])
    return coded.released(layout)


@pytest.fixture
def ids(layout: Layout) -> alignrec.SemanticIds:
    return alignrec.load(layout.release).semantic_ids("beit3", method="residual-kmeans")


def test_codes_and_suffix_are_arrays_in_item_order(ids: alignrec.SemanticIds) -> None:
    assert repr(ids) == "<SemanticIds beit3 by residual-kmeans: 6 items, 2 levels x 3 codes>"
    assert (ids.codes.dtype, ids.codes.shape, len(ids)) == (np.int32, (6, 2), 6)
    assert ids.suffix is not None
    assert (ids.codes[4].tolist(), ids.suffix[4]) == ([-1, -1], -1)
    assert np.array_equal(ids.codes[5], ids.codes[0])
    assert (ids.suffix[0], ids.suffix[5]) == (0, 1)
    assert ids.of("A5") == (*ids.codes[0].tolist(), 1)
    assert ids.of("A4") is None


def test_encode_is_the_nearest_centroid_level_by_level(ids: alignrec.SemanticIds, layout: Layout) -> None:
    x = alignrec.load(layout.release).features["beit3"]
    assert np.array_equal(ids.encode(x), ids.codes)
    assert np.array_equal(ids.encode(7 * x[1:3]), ids.codes[1:3])
    centroids = load_file(ids.folder / "codebooks.safetensors")["centroids"]
    new = np.random.default_rng(2).normal(size=(20, toy.WIDTH)).astype(np.float32)
    rest, slow = unit_rows(new)[0].astype(np.float64), []
    for level in centroids:
        slow.append(((rest[:, None] - level) ** 2).sum(axis=2).argmin(axis=1))
        rest = rest - level[slow[-1]]
    assert np.array_equal(ids.encode(new), np.stack(slow, axis=1))


def test_decode_is_the_sum_of_centroids_of_length_1(ids: alignrec.SemanticIds) -> None:
    centroids = load_file(ids.folder / "codebooks.safetensors")["centroids"]
    x = ids.decode(ids.codes)
    assert not x[4].any()
    there = [0, 1, 2, 3, 5]
    total = centroids[0][ids.codes[there, 0]] + centroids[1][ids.codes[there, 1]]
    np.testing.assert_allclose(x[there], total / np.linalg.norm(total, axis=1, keepdims=True), atol=1e-6)


def test_save_and_load_are_the_same_bytes_and_codes(ids: alignrec.SemanticIds, tmp_path: Path) -> None:
    ids.save(tmp_path / "codes")
    again = alignrec.SemanticIds(tmp_path / "codes")
    for name in NAMES:
        assert (tmp_path / "codes" / name).read_bytes() == (ids.folder / name).read_bytes()
    assert np.array_equal(again.codes, ids.codes)
    new = np.random.default_rng(3).normal(size=(50, toy.WIDTH))
    assert np.array_equal(again.encode(new), ids.encode(new))
    with pytest.raises(alignrec.UserError, match=r"semantic_ids\.parquet: exists already"):
        ids.save(tmp_path / "codes")


def test_mistakes_are_one_line(ids: alignrec.SemanticIds, layout: Layout, tmp_path: Path) -> None:
    release = alignrec.load(layout.release)
    for wrong, line in {
        lambda: release.semantic_ids("beit"): "'beit'; there are beit3, minilm-cnn",
        lambda: release.semantic_ids("beit3", "rq-vae"): "'beit3' by 'rq-vae'; valid: residual-kmeans",
        lambda: ids.of("A9"): "no item 'A9' among the semantic IDs",
        lambda: ids.encode(np.ones((2, 3))): "vectors: 3 .* for 2",
        lambda: ids.encode(np.full((2, 2), np.nan)): "not finite",
        lambda: ids.decode(np.zeros((2, 3), int)): r"codes: int64 \(2, 3\)",
        lambda: ids.decode(np.zeros((2, 2))): "codes: float64",
        lambda: ids.decode(np.array([[0, 0], [0, 3]])): r"codes, row 1: \[0, 3\]; give 0 .. 2",
        lambda: ids.decode(np.array([[0, -1]])): r"codes, row 0: \[0, -1\]; give 0 .. 2",
        lambda: alignrec.SemanticIds(tmp_path): r"codes\.json: not there",
    }.items():
        with pytest.raises(alignrec.UserError, match=line):
            wrong()
    damaged = shutil.copytree(ids.folder, tmp_path / "damaged")
    (damaged / "codebooks.safetensors").write_bytes(b"?")
    with pytest.raises(alignrec.UserError, match=r"codebooks\.safetensors: not readable"):
        alignrec.SemanticIds(damaged).encode(np.ones((1, 2)))


def test_several_methods_are_to_be_chosen_from(tmp_path: Path) -> None:
    made = coded.outputs(tmp_path, coded.params(publish={"semantic_ids": ["residual-kmeans", "random"]}))
    release = alignrec.load(made.release)
    with pytest.raises(alignrec.UserError, match=r"'beit3'.* random, residual-kmeans"):
        release.semantic_ids("beit3")
    assert release.semantic_ids("beit3", "random").method == "random"


def test_the_page_runs(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "semantic_ids(" in code)
    shutil.copytree(layout.release, tmp_path / "release")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert np.array_equal(names["new"], names["codes"][:5])
    assert np.array_equal(names["same"].codes, names["codes"])
