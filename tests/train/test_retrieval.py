"""The index finds what exact ranking does, reports its recall, and is reproducible."""

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.metrics import topk
from alignrec.pipeline.interactions.split import Pairs
from alignrec.pipeline.train import retrieval
from alignrec.pipeline.train.embeddings import Embeddings

USERS, ITEMS, WIDTH = 300, 2000, 8


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(USERS, WIDTH)).astype("f4"), rng.normal(size=(ITEMS, WIDTH)).astype("f4")


@pytest.fixture(scope="module")
def seen(vectors: tuple[np.ndarray, np.ndarray]) -> Pairs:
    """Every user has seen between 0 and 29 of the best items."""
    user, item = vectors
    best = np.argsort(-user @ item.T, axis=1)
    rows = [(u, i) for u in range(USERS) for i in sorted(best[u, : u % 30])]
    return Pairs(*(np.array(column, np.int32) for column in zip(*rows, strict=True)))


def test_the_flat_index_ranks_as_the_evaluation_does(vectors: tuple[np.ndarray, np.ndarray], seen: Pairs) -> None:
    user, item = vectors
    users = np.array([7, 0, 299, 29, 7])
    ids, scores = retrieval.recommend_items(retrieval.build_flat(item), user, users, 5, seen)
    assert np.array_equal(ids, topk(user, item, 5, seen, users))
    assert np.allclose(scores, np.take_along_axis(user[users] @ item.T, ids, 1), atol=1e-5)


def test_equal_scores_come_in_ascending_order_and_nothing_is_minus_one() -> None:
    seen = Pairs(np.array([0, 0, 0], np.int32), np.array([0, 2, 4], np.int32))
    index = retrieval.build_flat(np.ones((5, 2), np.float32))
    ids, scores = retrieval.recommend_items(index, np.ones((2, 2), np.float32), np.array([0, 1]), 5, seen)
    assert ids.tolist() == [[1, 3, -1, -1, -1], [0, 1, 2, 3, 4]]
    assert scores[0].tolist() == [2, 2, -np.inf, -np.inf, -np.inf]


@pytest.fixture(scope="module")
def stored(vectors: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    """The item vectors as written by `train`."""
    ids, path = pa.array(range(ITEMS), pa.int32()), tmp_path_factory.mktemp("train") / "items.parquet"
    table = pa.table({"item_id": ids, "asin": ids.cast(pa.string()), "vector": io.vectors(vectors[1])})
    io.write_table(table, path, schemas.item_embeddings(WIDTH))
    return Embeddings(path, schemas.item_embeddings)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use parts that are smaller than the catalogue."""
    monkeypatch.setattr(io, "PART", 300)


def test_exact_ranking_is_the_same_by_parts_of_the_items(
    vectors: tuple[np.ndarray, np.ndarray], seen: Pairs, stored: Embeddings, in_parts: None
) -> None:
    user, item = vectors
    assert len([*stored]) == 7
    assert np.array_equal(retrieval.search_exact(user, stored, 20, seen), topk(user, item, 20, seen))
    all_seen = Pairs(np.zeros(ITEMS - 2, np.int32), np.arange(2, ITEMS, dtype=np.int32))
    assert (retrieval.search_exact(user[:1], stored, 3, all_seen) == topk(user[:1], item, 3, all_seen)).all()


def test_a_large_catalogue_gets_an_inverted_file_that_searches_as_much_as_enough_recall_takes(
    vectors: tuple[np.ndarray, np.ndarray], seen: Pairs, stored: Embeddings, in_parts: None, tmp_path: Path
) -> None:
    """The reported recall is that of a search."""
    user, item = vectors
    made = retrieval.build_index(stored, user, seen, ITEMS - 1)
    assert made.facts["kind"] == "ivf"
    assert retrieval.ENOUGH <= made.facts["recall"] < 1
    assert 1 < made.facts["searched"] < made.facts["lists"]
    made.write(tmp_path / "items.faiss")
    index = faiss.read_index(str(tmp_path / "items.faiss"))
    assert (index.nprobe, index.ntotal) == (made.facts["searched"], ITEMS)
    found, _ = retrieval.recommend_items(index, user, np.arange(USERS), 20, seen)
    assert retrieval.index_recall(found, topk(user, item, 20, seen)) == pytest.approx(made.facts["recall"], abs=1e-4)
    pairs = set(zip(seen.users.tolist(), seen.items.tolist(), strict=True))
    assert not any((u, i) in pairs for u, row in enumerate(found.tolist()) for i in row)


def test_the_bytes_are_the_same_with_any_number_of_threads(
    vectors: tuple[np.ndarray, np.ndarray], seen: Pairs, stored: Embeddings, tmp_path: Path
) -> None:
    indexes = []
    before = faiss.omp_get_max_threads()
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        for most in (10, ITEMS):
            retrieval.build_index(stored, vectors[0], seen, most).write(tmp_path / "items.faiss")
            indexes.append((tmp_path / "items.faiss").read_bytes())
    faiss.omp_set_num_threads(before)
    assert indexes[:2] == indexes[2:]
