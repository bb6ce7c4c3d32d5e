"""Neighbours by cosine, exact and by an inverted file, and the stage graph."""

import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nodes import one_worker, ray_cluster
from shop import toy
from threadpoolctl import threadpool_limits

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.features import graph
from alignrec.pipeline.linalg import inverted, neighbours
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.runtime import cluster
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters


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


FINDERS = {"exact": neighbours.find_neighbours, "ivf": inverted.find_approximate}
FIND = {search: search.find for search in (neighbours.ExactSearch, inverted.Inverted)}
SMALL = {
    (neighbours, "ROWS_PER_SHARD"): 300,
    (neighbours, "MAX_FIT_ROWS"): 1200,
    (inverted, "BLOCK_ROWS"): 250,
    (inverted, "SCANNED_ROWS"): 150,
    (inverted, "TEST_QUERIES"): 200,
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use parts of 300 rows, so that a test has several."""
    for (module, name), value in SMALL.items():
        monkeypatch.setattr(module, name, value)


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
    for find in FINDERS.values():
        few = find(np.eye(3, dtype=np.float32), 10)
        assert lists(few) == {0: [0, 1, 2], 1: [1, 0, 2], 2: [2, 0, 1]}
        assert lists(find(np.zeros((3, 2), np.float32), 2)) == {0: [0], 1: [1], 2: [2]}


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
    edges = inverted.find_approximate(features, 6)
    neighbour_lists = lists(schemas.check(edges, schemas.EDGES))
    exact = lists(neighbours.find_neighbours(features, 6))
    assert edges["item_id"].to_pylist() == sorted(edges["item_id"].to_pylist())
    assert all(neighbour_lists[i][0] == i for i in range(2000))
    assert all(neighbour_lists[i] == [i] for i in (7, 9, 1600))
    found = [len({*neighbour_lists[i][1:]} & {*exact[i][1:]}) for i in range(2000) if len(exact[i]) == 6]
    assert np.mean(found) > 5 * 0.93
    assert edges.equals(inverted.find_approximate(features, 6))
    assert capfd.readouterr().out == "", "FAISS prints what it merges"


def test_a_recall_that_equals_what_is_required_suffices(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverted, "REQUIRED_RECALL", 1.0)
    monkeypatch.setattr(inverted, "FREE_CELLS", 1 << 20)  # so that all cells may be searched
    assert len(inverted.find_approximate(clusters(900), 5)) == 900 * 5


def test_equal_vectors_do_not_make_a_search_of_all_pairs(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share a cell, of which each item is compared with a bounded number."""
    compared: list[int] = []
    search = faiss.knn

    def count(queries: np.ndarray, rows: np.ndarray, *args: int, **options: int) -> object:
        compared.append(len(queries) * len(rows))
        return search(queries, rows, *args, **options)

    monkeypatch.setattr(faiss, "knn", count)
    monkeypatch.setattr(inverted, "MAX_CROWDING", 4)
    features = clusters(2000)
    features[200:] = features[0]
    linked = lists(inverted.find_approximate(features, 5))
    assert linked[1999] == [1999, 0, 200, 201, 202]
    assert all(linked[item][0] == item for item in linked)
    assert {len(linked[item]) for item in linked} == {5}
    found = sum(compared) - 200 * 2000  # the rows searched exactly
    assert found < 2000 * 2000 / 2


def test_cosines_are_exact_and_equal_ones_come_in_order(small: None) -> None:
    features = clusters(900)
    features[400:410] = features[3]
    edges = inverted.find_approximate(features, 5)
    units, _ = unit_rows(features)
    pairs = edges["item_id"].to_numpy(), edges["neighbour_id"].to_numpy()
    cosine = np.einsum("nf,nf->n", units[pairs[0]], units[pairs[1]])
    np.testing.assert_allclose(edges["cosine"].to_numpy(), cosine, atol=1e-6)
    assert lists(edges)[405] == [405, 3, 400, 401, 402]


@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_any_number_of_threads_gives_the_same_bytes(index: str, small: None) -> None:
    before, tables = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 3):
            faiss.omp_set_num_threads(threads)
            with threadpool_limits(threads):
                tables.append(FINDERS[index](clusters(2000), 6))
            assert faiss.omp_get_max_threads() == threads, "the caller's number is given back"
    finally:
        faiss.omp_set_num_threads(before)
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_cells_grow_with_the_root_of_the_catalogue() -> None:
    """The cost of a search then grows with the root as well, up to four million items."""
    cells = [neighbours.count_fit_rows(n) // neighbours.ROWS_PER_CELL for n in (250_000, 1_000_000, 4_000_000)]
    assert cells == [2000, 4000, 8000]


# --- the stage


ITEMS, WIDTH = 1000, 32


def test_a_large_set_is_searched_on_disk_and_a_random_control_may_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for (module, name), value in SMALL.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(inverted, "FREE_CELLS", 4)
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
    assert edges.equals(schemas.check(inverted.find_approximate(features, 6), schemas.EDGES))
    assert (record["rows_in"], record["rows_out"]) == (2 * ITEMS, 2 * 6 * ITEMS - 10)
    assert record["drops"] == {"f: item without direction": 2}
    assert record["notes"]["f"]["index"] == "ivf"
    assert record["notes"]["f"]["recall"] >= 0.95 > record["notes"]["random"]["recall"]
    assert {path.name for path in layout.edges("f").parent.iterdir()} == {"edges.parquet"}
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left"):
        inverted.find_approximate(features, 6)


# --- what is there already


@pytest.fixture
def shop(tmp_path: Path, small: None) -> Layout:
    """A shop with two sets of 1000 items, in four shards; some items have no direction."""
    layout = Layout(tmp_path, "shop")
    features = clusters(ITEMS)
    features[[0, 299, 300, 301, 999]] = 0
    for name, vectors in (("f", features), ("random", clusters(ITEMS)[::-1].copy())):
        toy.write_set(layout.features(name), toy.feature_table(vectors), rows=400)
    return layout


def settings(index: str, **graph: object) -> Parameters:
    return toy.params(graph={"k": 6, "index": index, **graph})


def search_whole(layout: Layout, params: Parameters) -> dict[str, bytes]:
    toy.run("graph", params, layout.root)
    return toy.contents(layout.out("graph"))


def kill_search(layout: Layout, params: Parameters) -> None:
    """Search, and end at the third shard of the first set."""

    def stop(self: graph.Search, shard: int) -> pa.Table:
        if shard == 2:
            raise KeyboardInterrupt
        return FIND[type(self)](self, shard)

    with pytest.MonkeyPatch.context() as patch:
        for search in FIND:
            patch.setattr(search, "find", stop)
        with pytest.raises(KeyboardInterrupt):
            search_whole(layout, params)


def delete_graphs(layout: Layout) -> None:
    shutil.rmtree(layout.out("graph"))
    shutil.rmtree(layout.work("graph"))


def test_a_set_that_is_new_or_gone_is_noticed(shop: Layout) -> None:
    params = settings("exact")
    before = search_whole(shop, params)
    toy.write_set(shop.features("g"), toy.feature_table(clusters(ITEMS)[:, ::-1].copy()), rows=400)
    both = search_whole(shop, params)
    assert set(both) - set(before) == {"g/edges.parquet"}
    shutil.rmtree(shop.features("g"))
    after = search_whole(shop, params)
    assert {name: after[name] for name in after if name != "run.json"} == {
        name: before[name] for name in before if name != "run.json"
    }


@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_shards_are_joined_and_those_of_a_killed_run_not_searched_again(
    index: str, shop: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = settings(index)
    expected = search_whole(shop, params)
    whole = FINDERS[index](io.matrix(io.read_features(shop.features("f"))["vector"]), 6)
    assert io.read_table(shop.edges("f"), schemas.EDGES).equals(schemas.check(whole, schemas.EDGES))
    delete_graphs(shop)

    kill_search(shop, params)
    searched: list[int] = []
    for search, find in FIND.items():
        counted = lambda self, shard, find=find: searched.append(shard) or find(self, shard)  # noqa: E731
        monkeypatch.setattr(search, "find", counted)
    assert search_whole(shop, params) == expected
    assert searched == [2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_all_items_are_searched_too(index: str, shop: Layout) -> None:
    vectors = clusters(ITEMS + 500)[ITEMS:]
    further = toy.feature_table(vectors, item_id=range(ITEMS, ITEMS + 500))
    io.write_table(further, io.shard(shop.features("f"), "further", 0), schemas.features(vectors.shape[1]))
    search_whole(shop, settings(index))
    core = io.matrix(io.read_features(shop.features("f"))["vector"])
    expected = FINDERS[index](np.concatenate([core, vectors]), 6)
    linked = io.read_table(shop.catalogue_edges("f"), schemas.EDGES)
    assert linked.equals(schemas.check(expected, schemas.EDGES))


def test_a_search_is_kept_until_items_come(shop: Layout, capfd: pytest.CaptureFixture[str]) -> None:
    def is_kept() -> bool:
        search_whole(shop, settings("exact"))
        return "all that it makes is there, and is kept" in capfd.readouterr().out

    assert [is_kept(), is_kept()] == [False, True]
    further = toy.feature_table(clusters(50), item_id=range(ITEMS, ITEMS + 50))
    io.write_table(further, io.shard(shop.features("f"), "further", 0), schemas.features(8))
    assert [is_kept(), is_kept()] == [False, True]


@pytest.mark.parametrize("damaged", ["edges-00001.parquet", ".edges-index/items.npy", ".edges-index/units.f32"])
def test_what_is_damaged_of_a_killed_run_is_made_again(
    damaged: str, shop: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    params = settings("ivf")
    expected = search_whole(shop, params)
    delete_graphs(shop)
    kill_search(shop, params)
    path = shop.work("graph") / "f" / damaged
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    capsys.readouterr()
    assert search_whole(shop, params) == expected
    warned = capsys.readouterr().err.splitlines()
    if damaged.startswith("edges"):
        assert [line for line in warned if "altered" in line] == [
            f"warning: graph shop: {path} was altered after it was made; it is made again"
        ]


def test_shards_of_other_settings_are_not_joined(shop: Layout) -> None:
    expected = search_whole(shop, settings("exact", k=4))
    delete_graphs(shop)
    kill_search(shop, settings("exact"))
    assert search_whole(shop, settings("exact", k=4)) == expected


def test_a_search_is_sent_to_nodes_without_a_shared_folder(tmp_path: Path, small: None) -> None:
    features = clusters(700)
    inverted.build_index(iter([features]), 5, tmp_path)
    for search in (neighbours.ExactSearch(features, 5), inverted.Inverted(tmp_path, 5)):
        expected = [search.find(shard) for shard in range(search.shards)]
        sent = pickle.loads(pickle.dumps(search))
        assert [sent.find(shard) for shard in range(sent.shards)] == expected


def search_small(search: graph.Search) -> cluster.Work[int]:
    """Return work in parts of 300 rows, on a node whose modules know no fixture."""
    for (module, name), value in SMALL.items():
        setattr(module, name, value)
    return lambda number, nothing: search.find(number)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_two_nodes_give_the_bytes_of_one_machine(index: str, shop: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = search_whole(shop, settings(index))
    delete_graphs(shop)
    monkeypatch.setattr(graph, "_load_on_node", search_small)
    with ray_cluster() as nodes:
        nodes.add_node(**one_worker())
        toy.run("graph", settings(index, engine="ray"), shop.root)
    actual = toy.contents(shop.out("graph"))
    assert {name: actual[name] for name in actual if name != "run.json"} == {
        name: expected[name] for name in expected if name != "run.json"
    }
