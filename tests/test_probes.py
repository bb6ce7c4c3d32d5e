"""Probes on toy worlds with one obvious answer."""

import numpy as np
import pytest

from pipeline import probes

KS = [1, 2, 3]
EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def asked(user: list[int], item: list[int], time: list[int], items: int) -> probes.Questions:
    return probes.last_item(np.array(user), np.array(item), np.array(time), items)


def test_zero_shot_finds_the_item_that_looks_like_the_history() -> None:
    features = np.array([EAST, EAST, NORTH, WEST, EAST], np.float32)
    found = probes.hits(features, asked([0, 0, 0], [0, 1, 4], [10, 20, 30], 5), KS)
    assert found.tolist() == [[1, 1, 1]]


def test_zero_shot_target_is_the_latest_whatever_the_row_order() -> None:
    features = np.array([EAST, NORTH, WEST, [0.9, 0.1]], np.float32)
    rows = [(5, 2), (1, 0), (3, 1)]  # (time, item): the last, item 2, lies opposite to the mean of items 0 and 1
    question = asked([0, 0, 0], [i for _, i in rows], [t for t, _ in rows], 4)
    assert question.target.tolist() == [2]
    assert question.members.toarray().tolist() == [[1, 1, 0, 0]]
    assert probes.hits(features, question, KS).tolist() == [[0, 1, 1]]


def test_zero_shot_items_of_the_same_last_second_are_the_target_in_turn() -> None:
    question = asked([0, 0, 0], [0, 1, 2], [1, 7, 7], 4)
    assert question.target.tolist() == [1, 2]
    assert question.members.toarray().tolist() == [[1, 0, 1, 0], [1, 1, 0, 0]]
    assert question.group.tolist() == [0, 0]
    features = np.array([EAST, EAST, WEST, NORTH], np.float32)
    # item 1 is found among {1, 3} where the mean of 0 and 2 is zero: a tie; item 2 comes last of {2, 3}
    assert probes.hits(features, question, [1, 2]).tolist() == [[0.25, 1]]


def test_zero_shot_a_repeated_item_counts_once_and_at_its_first_time() -> None:
    question = asked([0, 0, 0], [0, 1, 0], [1, 2, 3], 3)
    assert question.target.tolist() == [1]
    assert question.members.toarray().tolist() == [[1, 0, 0]]


def test_zero_shot_users_without_history_ask_nothing() -> None:
    question = asked([0, 3, 3], [0, 1, 2], [1, 1, 2], 3)
    assert question.target.tolist() == [2]
    assert question.group.tolist() == [0]


def test_item_cf_target_shares_most_users_relative_to_popularity() -> None:
    # items 0 and 1: both users of each; item 2 is everyone's, so less close to either
    user = np.array([0, 1, 0, 1, 0, 1, 2, 3])
    item = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    question = probes.co_bought(user, item, 4)
    pairs = sorted(zip(question.members.indices.tolist(), question.target.tolist(), strict=True))
    assert pairs == [(0, 1), (1, 0), (2, 0), (2, 1)]  # item 3 was never bought; item 2 is equally close to both
    assert question.group.tolist() == [0, 1, 2, 2]


def test_item_cf_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    bought = rng.random((40, 25)) < 0.2
    user, item = np.nonzero(bought)
    b = bought.astype(float)
    score = (b.T @ b) / np.sqrt(np.outer(b.sum(0), b.sum(0)))
    np.fill_diagonal(score, -1)
    best = np.isclose(score, score.max(axis=1, keepdims=True), rtol=1e-12)
    j, i = np.nonzero(best)
    question = probes.co_bought(user, item, 25, block=7)
    assert question.members.indices.tolist() == j.tolist()
    assert question.target.tolist() == i.tolist()


def plain_hits(features: np.ndarray, question: probes.Questions, k: int) -> list[float]:
    """The definition by full sorting, for features without ties."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = []
    for row, target in zip(question.members.toarray() > 0, question.target, strict=True):
        scores = unit[row].mean(axis=0) @ unit.T
        scores[row] = -np.inf
        found.append(float(target in np.argsort(-scores)[:k]))
    return [float(np.mean(np.array(found)[question.group == g])) for g in range(question.group.max() + 1)]


@pytest.mark.parametrize("scores_held", [1, 400, 1 << 20])
def test_hits_are_their_definition_in_any_block_size(scores_held: int) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 8)).astype(np.float32)
    question = probes.last_item(rng.integers(0, 50, 300), rng.integers(0, 60, 300), rng.integers(0, 9, 300), 60)
    found = probes.hits(features, question, [5, 20], scores_held)
    assert found[:, 0] == pytest.approx(plain_hits(features, question, 5))
    assert found[:, 1] == pytest.approx(plain_hits(features, question, 20))


def test_constant_features_score_as_chance_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    question = probes.last_item(rng.integers(0, 50, 300), rng.integers(0, 60, 300), rng.integers(0, 9, 300), 60)
    found = probes.hits(np.full((60, 7), 0.3, np.float32), question, [5, 20]).mean(axis=0)
    assert found == pytest.approx(probes.chance(question, [5, 20]))


def test_masked_rows_of_zeros_are_nobodys_neighbour_and_no_nan() -> None:
    features = np.array([EAST, EAST, [0, 0], NORTH, NORTH], np.float32)
    found = probes.hits(features, asked([0, 0, 1, 1], [0, 1, 2, 3], [1, 2, 1, 2], 5), [1])
    assert found.tolist() == [[1], [0.25]]  # the zero row's history cannot tell its four candidates apart


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 is not finite"):
        probes.normalised(np.array([EAST, [np.nan, 0]], np.float32))


def test_summary_holds_means_standard_errors_and_chance() -> None:
    question = asked([0, 0, 1, 1], [0, 1, 2, 3], [1, 2, 1, 2], 5)
    out = probes.summary(question, {"f": np.array([[0.0, 1.0], [1.0, 1.0]])}, [1, 2], "users")
    assert out == {
        "users": 2,
        "chance": {"hit@1": 0.25, "hit@2": 0.5},
        "f": {"hit@1": 0.5, "hit@2": 1.0, "hit@1_se": 0.353553, "hit@2_se": 0.0},
    }
