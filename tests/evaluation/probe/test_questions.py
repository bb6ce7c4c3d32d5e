"""Probes on toy data with one obvious answer, on samples of a large catalogue, and of processed forms."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from shop import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.dataset import cooccurrence, split
from alignrec.pipeline.evaluation.probe import behaviour, judge, questions
from alignrec.pipeline.evaluation.probe.behaviour import content_neighbours
from alignrec.pipeline.evaluation.probe.judge import VALID_K, Processing, paired_verdicts
from alignrec.pipeline.evaluation.probe.registry import Data
from alignrec.pipeline.linalg import projections
from alignrec.pipeline.linalg.projections import unit_rows
from alignrec.pipeline.models import metrics

KS = [1, 2, 3]
EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def last_items(user: list[int], item: list[int], time: list[int], items: int) -> questions.Questions:
    return behaviour.last_items(np.array(user), np.array(item), np.array(time), items)


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


def test_item_cf_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    bought = rng.random((40, 25)) < 0.2
    user, item = np.nonzero(bought)
    b = bought.astype(float)
    score = (b.T @ b) / np.sqrt(np.outer(b.sum(0), b.sum(0)))
    np.fill_diagonal(score, -1)
    best = np.isclose(score, score.max(axis=1, keepdims=True), rtol=1e-12)
    j, i = np.nonzero(best)
    seen = cooccurrence.user_item_matrix(user, item, 25)
    several = seen[np.diff(seen.indptr) > 1]
    question = behaviour.co_bought(seen, np.flatnonzero(np.bincount(several.indices)))
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


def test_hits_are_their_definition() -> None:
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
    own = {"user_id": np.sort(rng.integers(0, 30, n)), "item_id": rng.integers(0, 50, n)}
    times = rng.integers(0, 9, n) if timed else [None] * n
    return toy.filled(schemas.INTERACTIONS, **own, timestamp=times, split=rng.choice([0, 0, 0, 1, 2], n))


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
    times, split = rng.integers(0, 5, len(rows)), rng.integers(0, 3, len(rows))
    columns = {"user_id": rows[:, 0], "item_id": rows[:, 1], "timestamp": times, "split": split}
    return Data(toy.filled(schemas.INTERACTIONS, **columns), ITEMS)


def test_drawn_users_and_items_have_the_answers_that_they_have_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert questions.sample_size(7_050) > 19_445, "Baby is asked in full"
    features = [("x", np.random.default_rng(0).standard_normal((ITEMS, 6)).astype(np.float32))]
    everyone = judge.answer_sets(judge.build_tasks(shop()), features, CUTOFFS)[0]
    monkeypatch.setattr(questions, "MAX_COSINES", 0)
    monkeypatch.setattr(questions, "MIN_SAMPLE", 20)
    asked = judge.build_tasks(shop())
    some, again = (judge.answer_sets(asked, features, CUTOFFS)[0] for asked in (asked, judge.build_tasks(shop())))
    for probe, unit in DRAWN.items():
        of_all = everyone[probe]["x"].tolist()
        assert len(some[probe]["x"]) == 20 < len(of_all)
        assert all(answer in of_all for answer in some[probe]["x"].tolist())
        assert isinstance(task := asked[probe], questions.Questions)
        assert task.note == f"20 of {len(of_all)} {unit} were asked, drawn by seed."
        assert np.array_equal(again[probe]["x"], some[probe]["x"])


# --- processed forms: validation chooses one of three per set; a verdict needs a win raw and processed


RNG = np.random.default_rng(3)
CATALOGUE = 50
DATA = Data(toy_interactions(5, timed=False), CATALOGUE)


def tastes(scale: float, noise: float) -> np.ndarray:
    """Ten informative columns, a dominant common direction and one of noise; float32 [I, 12]."""
    x = RNG.normal(size=(CATALOGUE, 12))
    x[:, 0] += scale
    x[:, 1] *= noise
    return x.astype(np.float32)


@pytest.mark.parametrize("x", [tastes(0, 1), tastes(30, 1), tastes(3, 9)], ids=["plain", "common", "noisy"])
def test_the_best_on_valid_is_chosen(x: np.ndarray) -> None:
    user, item, split = (DATA.interactions[c].to_numpy() for c in ("user_id", "item_id", "split"))
    asked = content_neighbours(user, item, np.array([0, 2, 1])[split], CATALOGUE)  # valid in the place of test
    processing = Processing(DATA, 8)
    chosen = processing.process("x", x)
    by_hand = {"raw": x, "relaxed": projections.whiten_rows(x, 8, 0.5), "whitened": projections.whiten_rows(x, 8)}
    figures = {form: questions.hit_rates(v, asked, [VALID_K]).mean() for form, v in by_hand.items()}
    best = max(figures, key=lambda form: figures[form])
    assert processing.chosen == {"x": best}
    np.testing.assert_array_equal(chosen, by_hand[best])
    facts = processing.facts()["forms"]["x"]
    assert facts == {"form": best} | {form: pytest.approx(figure, abs=1e-6) for form, figure in figures.items()}


def test_test_rows_choose_nothing() -> None:
    split = DATA.interactions["split"].to_numpy()
    without = DATA.interactions.filter(split != schemas.TEST)
    x = tastes(3, 5)
    chosen = []
    for interactions in (DATA.interactions, without):
        processing = Processing(replace(DATA, interactions=interactions), 8)
        processing.process("x", x)
        chosen.append(processing.facts())
    assert chosen[0] == chosen[1]


# --- verdicts: a feature set must win raw and processed, and both figures are reported


MEASURED = [10, 20]
ASKED = 400


def answers(rates: dict[str, float]) -> dict[str, dict[str, np.ndarray]]:
    """Return paired hits [ASKED, 2] at a rate per set: users hit at one rate are hit at every higher one."""
    rank = np.random.default_rng(0).permutation(ASKED) / ASKED
    return {"item_cf": {name: np.stack([rank < rate, rank < rate], axis=1) * 1.0 for name, rate in rates.items()}}


def judged(raw: dict[str, float], processed: dict[str, float]) -> list[dict[str, Any]]:
    return paired_verdicts(
        answers(raw), answers(processed), [("a", name) for name in raw if name != "a"], MEASURED, seed=0
    )


@pytest.mark.parametrize(
    ("raw", "processed", "expected"),
    [
        ((0.6, 0.3), (0.5, 0.3), "better"),
        ((0.3, 0.6), (0.3, 0.5), "worse"),
        ((0.6, 0.3), (0.3, 0.3), "undecided"),
        ((0.3, 0.3), (0.6, 0.3), "undecided"),
        ((0.6, 0.3), (0.3, 0.6), "undecided"),
    ],
)
def test_better_is_raw_and_processed(raw: tuple[float, float], processed: tuple[float, float], expected: str) -> None:
    rows = judged(dict(zip("ab", raw, strict=True)), dict(zip("ab", processed, strict=True)))
    assert [(r["measure"], r["a"], r["b"], r["verdict"]) for r in rows] == [
        ("hit@10", "a", "b", expected),
        ("hit@20", "a", "b", expected),
    ]
    assert rows[0]["raw"]["difference"] == pytest.approx(raw[0] - raw[1])
    assert rows[0]["processed"]["difference"] == pytest.approx(processed[0] - processed[1])


def test_all_tests_are_corrected_together() -> None:
    few = judged({"a": 0.3, "b": 0.287}, {"a": 0.3, "b": 0.287})
    many = judged({"a": 0.3} | {f"b{i}": 0.287 for i in range(9)}, {"a": 0.3} | {f"b{i}": 0.287 for i in range(9)})
    assert many[0]["raw"]["p_holm"] > few[0]["raw"]["p_holm"]
