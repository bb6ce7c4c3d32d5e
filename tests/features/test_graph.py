"""Neighbours by cosine, exact and by an inverted file, and the stage graph."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import started
from shop import toy
from threadpoolctl import threadpool_limits

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.linalg import neighbours
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.runtime.layout import Layout


def lists(edges: object) -> dict[int, list[int]]:
    by_item: dict[int, list[int]] = {}
    for row in edges.to_pylist():  # type: ignore[attr-defined]
        assert row["rank"] == len(by_item.setdefault(row["item_id"], []))
        by_item[row["item_id"]].append(row["neighbour_id"])
    return by_item


def clusters(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 8))
    return (centres[np.arange(n) % 20] + 0.1 * rng.normal(size=(n, 8))).astype(np.float32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use parts of 300 rows, so that a test has several."""
    for name, value in {
        "ROWS_PER_PART": 300,
        "SEARCH_BLOCK_ROWS": 250,
        "MAX_FIT_ROWS": 1200,
        "TEST_QUERIES": 200,
    }.items():
        monkeypatch.setattr(neighbours, name, value)


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_blocked_search_is_plain_sorting(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(12, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "CPU_QUERIES", 5)
        neighbour_lists = lists(neighbours.find_neighbours(features, k))
    units, _ = unit_rows(features)
    cosine = units @ units.T
    for i in range(12):
        others = sorted((j for j in range(12) if j != i), key=lambda j: (-cosine[i, j], j))
        assert neighbour_lists[i] == [i, *others[: k - 1]]


def test_ties_come_in_order_and_a_small_catalogue_gives_what_it_has(small: None) -> None:
    ties = lists(neighbours.find_neighbours(np.ones((6, 3), np.float32), 3))
    assert ties == {0: [0, 1, 2], 1: [1, 0, 2], 2: [2, 0, 1], 3: [3, 0, 1], 4: [4, 0, 1], 5: [5, 0, 1]}
    for index in ("exact", "ivf"):
        few = neighbours.find_neighbours(np.eye(3, dtype=np.float32), 10, index)
        assert lists(few) == {0: [0, 1, 2], 1: [1, 0, 2], 2: [2, 0, 1]}
        assert lists(neighbours.find_neighbours(np.zeros((3, 2), np.float32), 2, index)) == {0: [0], 1: [1], 2: [2]}


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_nobodys_neighbour(broken: float) -> None:
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    features[2] = broken
    neighbour_lists = lists(schemas.check(neighbours.find_neighbours(features, 5), schemas.EDGES))
    assert neighbour_lists[2] == [2]
    assert all(2 not in neighbour_lists[i] and len(neighbour_lists[i]) == 5 for i in (0, 1, 3, 4, 5))


# --- approximate


def test_an_inverted_file_finds_nearly_all_and_itself_first(small: None, capfd: pytest.CaptureFixture[str]) -> None:
    features = clusters(2000)
    features[7] = np.nan
    features[9] = features[1500:1800] = 0  # a whole part without direction
    edges = neighbours.find_neighbours(features, 6, "ivf")
    neighbour_lists = lists(schemas.check(edges, schemas.EDGES))
    exact = lists(neighbours.find_neighbours(features, 6))
    assert edges["item_id"].to_pylist() == sorted(edges["item_id"].to_pylist())
    assert all(neighbour_lists[i][0] == i for i in range(2000))
    assert all(neighbour_lists[i] == [i] for i in (7, 9, 1600))
    found = [len({*neighbour_lists[i][1:]} & {*exact[i][1:]}) for i in range(2000) if len(exact[i]) == 6]
    assert np.mean(found) > 5 * 0.93
    assert edges.equals(neighbours.find_neighbours(features, 6, "ivf"))
    assert capfd.readouterr().out == "", "FAISS prints what it merges"


def test_cosines_are_exact_and_equal_ones_come_in_order(small: None) -> None:
    features = clusters(900)
    features[400:410] = features[3]
    edges = neighbours.find_neighbours(features, 5, "ivf")
    units, _ = unit_rows(features)
    pairs = edges["item_id"].to_numpy(), edges["neighbour_id"].to_numpy()
    cosine = np.einsum("nf,nf->n", units[pairs[0]], units[pairs[1]])
    np.testing.assert_allclose(edges["cosine"].to_numpy(), cosine, atol=1e-6)
    assert lists(edges)[405] == [405, 3, 400, 401, 402]


@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_any_number_of_threads_gives_the_same_bytes(index: str, small: None) -> None:
    before, tables = faiss.omp_get_max_threads(), []
    for threads in (1, 2, 3):
        faiss.omp_set_num_threads(threads)
        with threadpool_limits(threads):
            tables.append(neighbours.find_neighbours(clusters(2000), 6, index))
        assert faiss.omp_get_max_threads() == threads, "the caller's number is given back"
    faiss.omp_set_num_threads(before)
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def held() -> int:
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def parts(n: int) -> Iterator[np.ndarray]:
    centres = np.random.default_rng(0).standard_normal((50, 256), dtype=np.float32)
    for start in range(0, n, neighbours.SEARCH_BLOCK_ROWS):
        rng = np.random.default_rng(start)
        rows = min(neighbours.SEARCH_BLOCK_ROWS, n - start)
        yield centres[rng.integers(0, 50, rows)] + rng.standard_normal((rows, 256), dtype=np.float32) / 8


def searched(n: int, folder: Path) -> None:
    folder.mkdir()
    for _ in neighbours.search_inverted(parts(n), 256, 10, folder)[0]:
        pass


def measured(n: int, folder: Path) -> None:
    """Print the peak memory of a search in parts."""
    neighbours.ROWS_PER_PART, neighbours.SEARCH_BLOCK_ROWS, neighbours.MAX_FIT_ROWS = 2048, 512, 8192
    searched(1500, folder / "warm")
    before, most, ended = held(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.01):
            most = max(most, held())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    searched(n, folder / "whole")
    ended.set()
    watcher.join()
    print((most - before) / 2048)  # KiB, of which 256 numbers take one


@pytest.mark.slow
def test_memory_does_not_grow_with_the_catalogue(tmp_path: Path) -> None:
    """Excludes mapped files, whose pages the system may drop."""
    taken = []
    for n in (10_000, 20_000):  # more than the sample
        (tmp_path / str(n)).mkdir()
        output, errors = started(measured, n, tmp_path / str(n)).communicate()
        assert output, errors
        taken.append(float(output))
    assert taken[0] < 12, "parts: the sample has four, and FAISS copies it"
    assert taken[1] - taken[0] < 2, f"{taken}, of 10 parts"  # of 5 more


# --- the stage


ITEMS, WIDTH = 1000, 32


def test_a_large_set_is_searched_on_disk_and_a_random_control_may_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ROWS_PER_PART": 300, "SEARCH_BLOCK_ROWS": 200, "MAX_FIT_ROWS": 900, "FREE_CELLS": 4}.items():
        monkeypatch.setattr(neighbours, name, value)
    rng = np.random.default_rng(0)
    isotropic = rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)
    features = (rng.normal(size=(20, WIDTH))[np.arange(ITEMS) % 20] + 0.3 * isotropic).astype(np.float32)
    features[[5, 700]] = 0
    layout = Layout(tmp_path, "shop")
    for name, vectors in (("f", features), ("random", isotropic)):
        toy.write_set(layout.features(name), toy.feature_table(vectors), rows=400)
    toy.run("graph", toy.params(graph={"k": 6, "exact_up_to": 999}), tmp_path)
    record = io.read_json(layout.run_record("graph"))
    edges = io.read_table(layout.edges("f"), schemas.EDGES)
    assert edges.equals(schemas.check(neighbours.find_neighbours(features, 6, "ivf"), schemas.EDGES))
    assert (record["rows_in"], record["rows_out"]) == (2 * ITEMS, 2 * 6 * ITEMS - 10)
    assert record["drops"] == {"f: item without direction": 2}
    assert record["notes"]["f"]["index"] == "ivf"
    assert record["notes"]["f"]["recall"] >= 0.95 > record["notes"]["random"]["recall"]
    assert {path.name for path in layout.edges("f").parent.iterdir()} == {"edges.parquet"}
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left"):
        neighbours.find_neighbours(features, 6, "ivf")
