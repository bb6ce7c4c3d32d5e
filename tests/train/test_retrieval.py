"""The index finds what exact ranking finds, says what it misses, and is the same bytes twice."""

import faiss
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.evaluation.ranking import topk
from pipeline.interactions.split import Pairs
from pipeline.train import retrieval

USERS, ITEMS, WIDTH = 300, 2000, 8


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(USERS, WIDTH)).astype("f4"), rng.normal(size=(ITEMS, WIDTH)).astype("f4")


@pytest.fixture(scope="module")
def seen(vectors: tuple[np.ndarray, np.ndarray]) -> Pairs:
    """Every user has seen the best of the catalogue, from none to 29 of it."""
    user, item = vectors
    best = np.argsort(-user @ item.T, axis=1)
    rows = [(u, i) for u in range(USERS) for i in sorted(best[u, : u % 30])]
    return Pairs(*(np.array(column, np.int32) for column in zip(*rows, strict=True)))


def test_the_flat_index_ranks_as_the_evaluation_does(vectors: tuple[np.ndarray, np.ndarray], seen: Pairs) -> None:
    user, item = vectors
    users = np.array([7, 0, 299, 29, 7])
    ids, scores = retrieval.retrieve(retrieval.build(item, ITEMS), user, users, 5, seen)
    assert np.array_equal(ids, topk(user, item, 5, seen, users))
    assert np.allclose(scores, np.take_along_axis(user[users] @ item.T, ids, 1), atol=1e-5)


def test_equal_scores_come_in_ascending_order_and_nothing_is_minus_one() -> None:
    seen = Pairs(np.array([0, 0, 0], np.int32), np.array([0, 2, 4], np.int32))
    index = retrieval.build(np.ones((5, 2), np.float32), 5)
    ids, scores = retrieval.retrieve(index, np.ones((2, 2), np.float32), np.array([0, 1]), 5, seen)
    assert ids.tolist() == [[1, 3, -1, -1, -1], [0, 1, 2, 3, 4]]
    assert scores[0].tolist() == [2, 2, -np.inf, -np.inf, -np.inf]


def test_an_inverted_file_searches_as_much_as_enough_recall_takes(
    vectors: tuple[np.ndarray, np.ndarray], seen: Pairs
) -> None:
    user, item = vectors
    index = retrieval.build(item, exact_up_to=ITEMS - 1)
    facts = retrieval.tune(index, item, user, seen)
    assert facts["kind"] == "ivf"
    assert retrieval.ENOUGH <= facts["recall"] < 1
    assert 1 < facts["searched"] < facts["lists"]
    again = faiss.deserialize_index(np.frombuffer(retrieval.to_bytes(index), np.uint8))
    assert again.nprobe == facts["searched"]
    one = retrieval.retrieve(index, user, np.arange(USERS), 20, seen)
    other = retrieval.retrieve(again, user, np.arange(USERS), 20, seen)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    pairs = set(zip(seen.users.tolist(), seen.items.tolist(), strict=True))
    assert not any((u, i) in pairs for u, row in enumerate(one[0].tolist()) for i in row)


def test_the_bytes_are_the_same_with_any_number_of_threads(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    indexes = []
    before = faiss.omp_get_max_threads()
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        indexes.append(retrieval.to_bytes(retrieval.build(vectors[1], exact_up_to=10)))
    faiss.omp_set_num_threads(before)
    assert indexes[0] == indexes[1]


def test_recall_counts_only_what_there_is_to_find() -> None:
    exact = np.array([[3, 1], [5, -1]])
    assert retrieval.recall(np.array([[1, 3], [5, -1]]), exact) == 1
    assert retrieval.recall(np.array([[1, 2], [-1, -1]]), exact) == pytest.approx(1 / 3)


def test_more_than_the_catalogue_is_refused(vectors: tuple[np.ndarray, np.ndarray], seen: Pairs) -> None:
    with pytest.raises(UserError, match=r"2001 items .* 2000"):
        retrieval.retrieve(retrieval.build(vectors[1], ITEMS), vectors[0], np.array([0]), ITEMS + 1, seen)
