from types import SimpleNamespace

import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops import two_tastes

import schemas
from pipeline.graph import approximate, gpu, neighbours
from pipeline.models import adjacency
from pipeline.ops.rows import unit_rows


def lists(edges: object) -> dict[int, list[int]]:
    by_item: dict[int, list[int]] = {}
    for row in edges.to_pylist():  # type: ignore[attr-defined]
        assert row["rank"] == len(by_item.setdefault(row["item_id"], []))
        by_item[row["item_id"]].append(row["neighbour_id"])
    return by_item


def test_each_item_finds_itself_then_its_like() -> None:
    features = np.array([[1, 0], [0, 2], [3, 0.1], [0.1, 1]], np.float32)
    edges = schemas.check(neighbours.neighbours(features, 2), schemas.EDGES)
    assert lists(edges) == {0: [0, 2], 1: [1, 3], 2: [2, 0], 3: [3, 1]}
    assert edges["cosine"].to_numpy()[::2] == pytest.approx(1)


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_blocked_search_is_plain_sorting(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(12, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", 5)
        neighbour_lists = lists(neighbours.neighbours(features, k))
    units, _ = unit_rows(features)
    cosine = units @ units.T
    for i in range(12):
        others = sorted((j for j in range(12) if j != i), key=lambda j: (-cosine[i, j], j))
        assert neighbour_lists[i] == [i, *others[: k - 1]]


def test_equal_items_come_in_order_and_self_first() -> None:
    neighbour_lists = lists(neighbours.neighbours(np.ones((6, 3), np.float32), 3))
    assert neighbour_lists == {0: [0, 1, 2], 1: [1, 0, 2], 2: [2, 0, 1], 3: [3, 0, 1], 4: [4, 0, 1], 5: [5, 0, 1]}


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_nobodys_neighbour(broken: float) -> None:
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    features[2] = broken
    neighbour_lists = lists(schemas.check(neighbours.neighbours(features, 5), schemas.EDGES))
    assert neighbour_lists[2] == [2]
    assert all(2 not in neighbour_lists[i] and len(neighbour_lists[i]) == 5 for i in (0, 1, 3, 4, 5))


def test_a_small_catalogue_gives_what_it_has() -> None:
    assert lists(neighbours.neighbours(np.eye(3, dtype=np.float32), 10)) == {0: [0, 1, 2], 1: [1, 0, 2], 2: [2, 0, 1]}


def test_item_graph_divides_by_row_sums_on_both_sides() -> None:
    edges = neighbours.neighbours(np.array([[1, 0], [1, 1], [0, 1]], np.float32), 2)
    w = np.zeros((3, 3))
    w[edges["item_id"], edges["neighbour_id"]] = edges["cosine"]
    d = np.diag(w.sum(1) ** -0.5)
    np.testing.assert_allclose(adjacency.item_graph(edges, 3).toarray(), d @ w @ d, atol=1e-6)


def test_user_item_graph_is_a_block_of_the_bipartite_one() -> None:
    split = two_tastes()
    n = split.n_users + split.n_items
    a = np.zeros((n, n))
    a[split.train.users, split.n_users + split.train.items] = 1
    a += a.T
    d = np.diag(np.maximum(a.sum(1), 1) ** -0.5)
    block = (d @ a @ d)[: split.n_users, split.n_users :]
    np.testing.assert_allclose(adjacency.user_item_graph(split).toarray(), block, atol=1e-6)


def test_item_graph_without_itself_and_with_edges_both_ways() -> None:
    """On a fan of directions 0, 20 and 50 degrees the nearest of 0 is 1, of 1 is 0, of 2 is 1."""
    angle = np.radians([0, 20, 50])
    edges = neighbours.neighbours(np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32), 2)
    own = [[0, 0], [1, 1], [2, 2]]
    one_way = [[0, 1], [1, 0], [2, 1]]
    assert np.argwhere(adjacency.item_graph(edges, 3).toarray()).tolist() == sorted(own + one_way)
    assert np.argwhere(adjacency.item_graph(edges, 3, self_neighbour=False).toarray()).tolist() == one_way
    both = adjacency.item_graph(edges, 3, symmetric=True).toarray()
    assert np.argwhere(both).tolist() == sorted([*own, *one_way, [1, 2]])
    np.testing.assert_allclose(both, both.T, rtol=1e-6)


def clusters(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 8))
    return (centres[np.arange(n) % 20] + 0.1 * rng.normal(size=(n, 8))).astype(np.float32)


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_an_approximate_index_finds_nearly_all_and_itself_first(index: neighbours.Index) -> None:
    features = clusters(2000)
    features[7] = np.nan
    features[9] = 0
    edges = neighbours.neighbours(features, 6, index)
    neighbour_lists = lists(schemas.check(edges, schemas.EDGES))
    assert all(neighbour_lists[i][0] == i for i in range(2000))
    assert neighbour_lists[7] == [7]
    assert neighbour_lists[9] == [9]
    assert not {7, 9} & {j for i in range(2000) if i not in (7, 9) for j in neighbour_lists[i]}
    assert neighbours.recall(features, edges, 500) > 0.95
    assert edges.equals(neighbours.neighbours(features, 6, index))


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_an_approximate_index_is_the_same_at_any_number_of_threads(index: neighbours.Index) -> None:
    before, tables, left = faiss.omp_get_max_threads(), [], []
    for threads in (1, 3):
        faiss.omp_set_num_threads(threads)
        tables.append(neighbours.neighbours(clusters(2000), 6, index))
        left.append(faiss.omp_get_max_threads())
    faiss.omp_set_num_threads(before)
    assert tables[0].equals(tables[1])
    assert left == [1, 3], "the caller's number is given back"


def test_recall_counts_the_exact_neighbours_without_the_item_itself() -> None:
    features = clusters(100)
    exact = neighbours.neighbours(features, 5)
    assert neighbours.recall(features, exact, 100) == 1
    assert neighbours.recall(features, exact.filter(pa.array(exact["rank"].to_numpy() < 2)), 100) == 1
    wrong = exact.set_column(1, "neighbour_id", pa.array((exact["item_id"].to_numpy() + 1) % 100, pa.int32()))
    assert neighbours.recall(features, wrong, 100) < 0.1


def test_a_missed_row_itself_takes_the_last_place_and_absent_ones_stay_last() -> None:
    cosines = np.array([[0.9, 0.8, 0.7], [1.0, 0.5, -9]], np.float32)
    ordered, ids = approximate._self_first(cosines, np.array([[3, 4, 5], [1, 2, -1]]), np.arange(2), np.ones(2))
    assert ids.tolist() == [[0, 3, 4], [1, 2, -1]]
    assert ordered[0].tolist() == pytest.approx([1, 0.9, 0.8])


def test_auto_is_exact_up_to_a_size() -> None:
    assert [neighbours.choose("auto", n, 100) for n in (100, 101)] == ["exact", "ivf"]
    assert neighbours.choose("hnsw", 5, 100) == "hnsw"


# --- GPUs


class OnGpu:
    """What FAISS gives for an index on GPUs: a CPU index that keeps the rules of one on a GPU."""

    def __init__(self, index: faiss.Index, log: list[str]) -> None:
        self.index, self.log = faiss.clone_index(index), log

    def add(self, rows: np.ndarray) -> None:
        self.log.append(f"add {len(rows)}")
        self.index.add(rows)

    def search(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert k <= gpu.MOST_NEIGHBOURS
        self.log.append(f"search {len(rows)}")
        return self.index.search(rows, k)  # type: ignore[no-any-return]


class GpuFaiss:
    """FAISS as the package faiss-gpu-cu12 has it, for some GPUs that there are not."""

    def __init__(self, gpus: int) -> None:
        self.gpus, self.log = gpus, list[str]()
        self.StandardGpuResources = lambda: SimpleNamespace(setTempMemory=lambda n: self.log.append(f"scratch {n}"))
        self.GpuMultipleClonerOptions = SimpleNamespace

    def get_num_gpus(self) -> int:
        return self.gpus

    def index_cpu_to_gpu(self, resources: object, device: int, index: faiss.Index) -> OnGpu:
        assert device == 0
        self.log.append("one")
        return OnGpu(index, self.log)

    def index_cpu_to_gpu_multiple_py(
        self, resources: list[object], index: faiss.Index, co: SimpleNamespace, gpus: list[int]
    ) -> OnGpu:
        assert len(resources) == len(gpus) == self.gpus
        assert co.shard
        self.log.append("several")
        return OnGpu(index, self.log)


def with_gpus(monkeypatch: pytest.MonkeyPatch, gpus: int, free: int = 2**40) -> list[str]:
    """Pretend that FAISS has GPUs with so many free bytes; return what is done on them."""
    fake = GpuFaiss(gpus)
    monkeypatch.setattr(gpu, "faiss", fake)
    monkeypatch.setattr(gpu, "_free", lambda _: free)
    return fake.log


def test_the_cpu_package_has_no_gpu() -> None:
    assert (gpu.count() > 0) == hasattr(faiss, "StandardGpuResources")


@pytest.mark.parametrize("gpus", [1, 3])
@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_gpus_give_the_same_edges(monkeypatch: pytest.MonkeyPatch, index: neighbours.Index, gpus: int) -> None:
    features = clusters(2500)
    features[11] = features[5]  # a tie
    expected = neighbours.neighbours(features, 6, index)
    log = with_gpus(monkeypatch, gpus)
    assert neighbours.neighbours(features, 6, index).equals(expected)
    assert log[:gpus] == [f"scratch {gpu.SCRATCH}"] * gpus
    assert log[gpus] == ("one" if gpus == 1 else "several")
    assert log[gpus + 1 :] == [*(["add 2500"] if index == "ivf" else []), "search 1024", "search 1024", "search 452"]
    assert neighbours.recall(features, expected, 100) == pytest.approx(1, abs=0.05)
    assert log[-1] == "search 100"
    log.clear()
    assert neighbours.neighbours(features, 6, index, use_gpu=False).equals(expected)
    assert not log


def test_hnsw_has_no_gpu_code(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, log = neighbours.neighbours(clusters(300), 6, "hnsw"), with_gpus(monkeypatch, 1)
    assert neighbours.neighbours(clusters(300), 6, "hnsw").equals(expected)
    assert not log


@pytest.mark.parametrize(("k", "free", "said"), [(6, 2 * gpu.SCRATCH, "too large"), (2100, 2**40, "2048 neighbours")])
@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_what_a_gpu_cannot_take_stays_on_the_cpu_and_is_said(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    index: neighbours.Index,
    k: int,
    free: int,
    said: str,
) -> None:
    features = clusters(2200)
    expected, log = neighbours.neighbours(features, k, index), with_gpus(monkeypatch, 1, free)
    assert neighbours.neighbours(features, k, index).equals(expected)
    assert not log
    assert [said in record.message and "on the CPU" in record.message for record in caplog.records] == [True]
