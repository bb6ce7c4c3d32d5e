"""Questions drawn from those to a large catalogue."""

import numpy as np
import pytest

from pipeline.probe import item_cf, questions, sampled, zero_shot
from pipeline.seeds import seed_for


def asked(users: int = 300, items: int = 90) -> questions.Questions:
    rng = np.random.default_rng(4)
    return zero_shot.last_item(*(rng.integers(0, high, 8 * users) for high in (users, items, 5)), items)


def test_a_catalogue_of_a_common_size_is_asked_in_full() -> None:
    assert sampled.most(7_050) > 19_445  # Baby's items and users
    question = asked()
    assert sampled.questions(question, 0) is question
    assert sampled.rows(90, 0).tolist() == list(range(90))


def test_groups_are_drawn_whole_and_their_questions_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "COSINES", 90 * 60)
    monkeypatch.setattr(sampled, "FEWEST", 1)
    question = asked()
    some = sampled.questions(question, seed_for("probe", "zero_shot"))
    assert 20 < len(some.target) < 120
    assert np.array_equal(np.unique(some.group), np.arange(some.groups))
    assert some.note == f"{some.groups} of {question.groups} users were asked, drawn by seed."
    features = np.random.default_rng(0).standard_normal((90, 6)).astype(np.float32)
    of_all, of_some = (questions.hits(features, part, [5, 10]).tolist() for part in (question, some))
    assert all(hits in of_all for hits in of_some)
    again, other = (sampled.questions(question, seed_for("probe", name)) for name in ("zero_shot", "item_cf"))
    assert np.array_equal(again.target, some.target)
    assert not np.array_equal(other.target, some.target)


def test_one_group_at_least_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "COSINES", 0)
    monkeypatch.setattr(sampled, "FEWEST", 1)
    hub = item_cf.co_bought(np.zeros(30, int), np.arange(30), 30)  # each item is bought with all others: 870 questions
    assert sampled.questions(hub, 0).groups == 1
    assert len(sampled.questions(hub, 0).target) == 29


def test_no_questions_stay_none() -> None:
    none = asked(users=0)
    assert sampled.questions(none, 0) is none
