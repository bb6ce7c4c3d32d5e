"""Probes on toy data with one obvious answer, and on samples of a large catalogue."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.evaluation import metrics
from alignrec.pipeline.interactions import cooccurrence, split
from alignrec.pipeline.ops.linalg import unit_rows
from alignrec.pipeline.probe import behaviour, judge, questions
from alignrec.pipeline.probe.registry import Data

KS = [1, 2, 3]
EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def last_items(user: list[int], item: list[int], time: list[int], items: int) -> questions.Questions:
    return behaviour.last_items(np.array(user), np.array(item), np.array(time), items)


def co_bought(user: np.ndarray, item: np.ndarray, items: int) -> questions.Questions:
    seen = cooccurrence.user_item_matrix(user, item, items)
    several = seen[np.diff(seen.indptr) > 1]
    return behaviour.co_bought(seen, np.flatnonzero(np.bincount(several.indices)))


def test_zero_shot_finds_the_item_that_looks_like_the_history() -> None:
    features = np.array([EAST, EAST, NORTH, WEST, EAST], np.float32)
    hits = questions.hit_rates(features, last_items([0, 0, 0], [0, 1, 4], [10, 20, 30], 5), KS)
    assert hits.tolist() == [[1, 1, 1]]


def test_zero_shot_target_is_the_latest_whatever_the_row_order() -> None:
    features = np.array([EAST, NORTH, WEST, [0.9, 0.1]], np.float32)
    rows = [(5, 2), (1, 0), (3, 1)]  # (time, item): the last, item 2, lies opposite to the mean of items 0 and 1
    question = last_items([0, 0, 0], [i for _, i in rows], [t for t, _ in rows], 4)
    assert question.target.tolist() == [2]
    assert question.members.toarray().tolist() == [[1, 1, 0, 0]]
    assert questions.hit_rates(features, question, KS).tolist() == [[0, 1, 1]]


def test_zero_shot_items_of_the_same_last_second_are_the_target_in_turn() -> None:
    question = last_items([0, 0, 0], [0, 1, 2], [1, 7, 7], 4)
    assert question.target.tolist() == [1, 2]
    assert question.members.toarray().tolist() == [[1, 0, 1, 0], [1, 1, 0, 0]]
    assert question.group.tolist() == [0, 0]
    features = np.array([EAST, EAST, WEST, NORTH], np.float32)
    # item 1 is in the top 1 of {1, 3} where the mean of 0 and 2 is zero: a tie; item 2 comes last of {2, 3}
    assert questions.hit_rates(features, question, [1, 2]).tolist() == [[0.25, 1]]


def test_item_cf_is_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "BLOCK", 7)
    rng = np.random.default_rng(0)
    bought = rng.random((40, 25)) < 0.2
    user, item = np.nonzero(bought)
    b = bought.astype(float)
    score = (b.T @ b) / np.sqrt(np.outer(b.sum(0), b.sum(0)))
    np.fill_diagonal(score, -1)
    best = np.isclose(score, score.max(axis=1, keepdims=True), rtol=1e-12)
    j, i = np.nonzero(best)
    question = co_bought(user, item, 25)
    assert question.members.indices.tolist() == j.tolist()
    assert question.target.tolist() == i.tolist()


def plain_hits(features: np.ndarray, question: questions.Questions, k: int) -> list[float]:
    """Hits by a full sort, for features without ties."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    hits = []
    for row, target in zip(question.members.toarray() > 0, question.target, strict=True):
        scores = unit[row].mean(axis=0) @ unit.T
        scores[row] = -np.inf
        hits.append(float(target in np.argsort(-scores)[:k]))
    return [float(np.mean(np.array(hits)[question.group == g])) for g in range(question.group.max() + 1)]


@pytest.mark.parametrize("scores_held", [1, 400, 1 << 20])
def test_hits_are_their_definition_in_any_block_size(scores_held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "SCORES_HELD", scores_held)
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 8)).astype(np.float32)
    question = behaviour.last_items(rng.integers(0, 50, 300), rng.integers(0, 60, 300), rng.integers(0, 9, 300), 60)
    hits = questions.hit_rates(features, question, [5, 20])
    assert hits[:, 0] == pytest.approx(plain_hits(features, question, 5))
    assert hits[:, 1] == pytest.approx(plain_hits(features, question, 20))


def test_equal_rows_of_any_width_tie_exactly() -> None:
    """In single precision 768 equal products add up to 1.000005, which ranked the target below its ties."""
    question = last_items([0, 0], [0, 1], [1, 2], 5)
    assert questions.hit_rates(np.ones((5, 768), np.float32), question, [1, 4]).tolist() == [[0.25, 1]]


def test_masked_rows_of_zeros_are_nobodys_neighbour_and_no_nan() -> None:
    features = np.array([EAST, EAST, [0, 0], NORTH, NORTH], np.float32)
    hits = questions.hit_rates(features, last_items([0, 0, 1, 1], [0, 1, 2, 3], [1, 2, 1, 2], 5), [1])
    assert hits.tolist() == [[1], [0.25]]  # the zero row's history cannot tell its four candidates apart


def toy_interactions(seed: int, timed: bool = True) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = 400
    table = {
        "user_id": pa.array(np.sort(rng.integers(0, 30, n)), pa.int32()),
        "item_id": pa.array(rng.integers(0, 50, n), pa.int32()),
        "rating": pa.nulls(n, pa.float32()),
        "timestamp": pa.array(rng.integers(0, 9, n), pa.int64()) if timed else pa.nulls(n, pa.int64()),
        "split": pa.array(rng.choice([0, 0, 0, 1, 2], n), pa.int8()),
    }
    return schemas.check(pa.table(table), schemas.INTERACTIONS)


def test_content_neighbours_is_recall_of_the_recommenders_evaluation() -> None:
    table = toy_interactions(3)
    # one row a pair, so that no test item is also in train
    pairs = np.stack([table["user_id"].to_numpy(), table["item_id"].to_numpy()], axis=1)
    table = table.take(np.sort(np.unique(pairs, axis=0, return_index=True)[1]))
    features = np.random.default_rng(4).normal(size=(50, 6)).astype(np.float32)
    unit = unit_rows(features)[0]
    parts = split.load_split(table, 30, 50)
    seen = np.zeros((30, 50), np.float32)
    seen[parts.train.users, parts.train.items] = 1
    profile = seen @ unit / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    expected = metrics.evaluate_vectors(profile, unit, parts, "test", [5, 10]).mean
    columns = (table[c].to_numpy() for c in ("user_id", "item_id", "split"))
    hits = questions.hit_rates(features, behaviour.content_neighbours(*columns, 50), [5, 10]).mean(axis=0)
    assert hits == pytest.approx([expected["recall", 5], expected["recall", 10]])


def test_zero_shot_uses_all_splits_and_item_cf_only_train(tmp_path: Path) -> None:
    table = io.read_table(toy.outputs(tmp_path).interactions, schemas.INTERACTIONS)
    probes = judge.build_tasks(Data(table, toy.ITEMS))
    assert isinstance(probes["zero_shot"], questions.Questions)
    assert isinstance(probes["item_cf"], questions.Questions)
    assert probes["zero_shot"].target.tolist() == [3, 4, 5, 0]  # each user's test item is the latest
    pairs = zip(probes["item_cf"].members.indices.tolist(), probes["item_cf"].target.tolist(), strict=True)
    assert set(pairs) == {(0, 1), (1, 0), (2, 1), (2, 3), (3, 4), (4, 3)}


# --- samples of users and items


ITEMS, CUTOFFS = 90, [5, 10]
DRAWN = {"zero_shot": "users", "content_knn": "users", "item_cf": "items"}


def shop(users: int = 300) -> Data:
    rng = np.random.default_rng(4)
    rows = np.unique(rng.integers(0, (users, ITEMS), (8 * users, 2)), axis=0)
    columns = {"user_id": rows[:, 0], "item_id": rows[:, 1], "timestamp": rng.integers(0, 5, len(rows))}
    columns |= {"rating": np.ones(len(rows)), "split": rng.integers(0, 3, len(rows))}
    table = pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schemas.INTERACTIONS})
    return Data(schemas.check(table, schemas.INTERACTIONS), ITEMS)


def test_drawn_users_and_items_have_the_answers_that_they_have_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert questions.sample_size(7_050) > 19_445, "Baby is asked in full"
    features = [("x", np.random.default_rng(0).standard_normal((ITEMS, 6)).astype(np.float32))]
    everyone = judge.answer_sets(judge.build_tasks(shop()), features, CUTOFFS)[0]
    monkeypatch.setattr(questions, "COSINES", 0)
    monkeypatch.setattr(questions, "FEWEST", 20)
    asked = judge.build_tasks(shop())
    some, again = (judge.answer_sets(asked, features, CUTOFFS)[0] for asked in (asked, judge.build_tasks(shop())))
    for probe, unit in DRAWN.items():
        of_all = everyone[probe]["x"].tolist()
        assert len(some[probe]["x"]) == 20 < len(of_all)
        assert all(answer in of_all for answer in some[probe]["x"].tolist())
        assert isinstance(task := asked[probe], questions.Questions)
        assert task.note == f"20 of {len(of_all)} {unit} were asked, drawn by seed."
        assert np.array_equal(again[probe]["x"], some[probe]["x"])
