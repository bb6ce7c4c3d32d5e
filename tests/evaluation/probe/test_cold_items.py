"""The probe of cold items: draws, hidden interactions, and intervals over users and items."""

from typing import Any

import numpy as np
import pytest
from shop import toy

from alignrec import schemas
from alignrec.pipeline.evaluation.probe import behaviour, cold_items, judge, questions
from alignrec.pipeline.evaluation.probe.registry import Data
from alignrec.pipeline.features import profiles

RNG = np.random.default_rng(0)
ITEMS, USERS, TASTES = 300, 120, 6
TASTE = RNG.integers(TASTES, size=ITEMS)


def pairs(each: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Users whose items are mostly of one taste; int [n] each."""
    user = np.repeat(np.arange(USERS), each)
    weight = np.where(TASTE[None, :] == (np.arange(USERS) % TASTES)[:, None], 20.0, 1.0)
    weight /= weight.sum(axis=1, keepdims=True)
    return user, np.concatenate([RNG.choice(ITEMS, each, replace=False, p=row) for row in weight])


PAIRS = pairs()
GOOD = (np.eye(TASTES)[TASTE] + 0.3 * RNG.normal(size=(ITEMS, TASTES))).astype(np.float32)
NOISE = RNG.normal(size=(ITEMS, TASTES)).astype(np.float32)


def data(**more: Any) -> Data:
    split = np.tile([0] * 16 + [1, 1, 2, 2], USERS)
    table = toy.filled(schemas.INTERACTIONS, user_id=PAIRS[0], item_id=PAIRS[1], split=split)
    return Data(table, ITEMS, **more)


def task() -> cold_items.ColdItems:
    asked = cold_items.draw_cold_items(data())
    assert isinstance(asked, cold_items.ColdItems)
    return asked


def test_recall_by_user_is_that_of_the_slow_questions() -> None:
    """One ranking per user equals one question per target."""
    user, item = PAIRS
    split = data().interactions["split"].to_numpy()
    slow = behaviour.content_neighbours(user, item, np.array([0, 2, 1])[split], ITEMS)
    has, finds = ((user[split == part], item[split == part]) for part in (schemas.TRAIN, schemas.VALID))
    asked = profiles.build_profiles(has, finds, profiles.draw_users(finds[0], ITEMS, 0), ITEMS)
    for x in (GOOD, NOISE, np.ones((ITEMS, 1), np.float32), np.round(GOOD)):
        fast = asked.recalls(x, 20)
        np.testing.assert_allclose(fast[~np.isnan(fast)], questions.hit_rates(x, slow, [20])[:, 0], atol=1e-9)


def test_every_item_is_cold_equally_often_and_in_no_profile() -> None:
    draws = task().draws
    assert len(draws) == cold_items.DRAWS
    times = np.bincount(np.concatenate([draw.candidates for draw in draws]), minlength=ITEMS)
    assert set(times) == {2}
    for draw in draws:
        assert not draw.has[:, draw.candidates].nnz
        assert np.isin(draw.target, draw.candidates).all()


def test_content_is_told_from_noise_and_noise_is_chance() -> None:
    asked = task()
    summary = asked.summary({name: asked.answer(x) for name, x in (("good", GOOD), ("noise", NOISE))})
    chance = summary["chance"]["recall@20"]
    assert chance == pytest.approx(20 / 60)
    good, noise = summary["good"], summary["noise"]
    assert good["recall@20_low"] > chance + 0.2
    assert noise["recall@20_low"] < chance < noise["recall@20_high"]
    assert good["recall@20_low"] < good["recall@20"] < good["recall@20_high"]
    assert "20 of 60 candidates" in summary["note"]  # K is near the number of candidates


def test_the_interval_covers_users_and_items() -> None:
    """Resampling only users underestimates the error if draws differ."""
    recalls = np.tile(np.linspace(0.2, 0.4, 10), (500, 1))  # all users alike, draws unlike
    of_draws, of_users = (task().summary({"x": x})["x"] for x in (recalls, recalls.T))
    assert of_draws["recall@20_se"] == pytest.approx(recalls[0].std() / np.sqrt(10), rel=0.15)
    assert of_draws["recall@20_low"] < of_draws["recall@20"] < of_draws["recall@20_high"]
    assert of_users["recall@20_se"] == pytest.approx(of_draws["recall@20_se"], rel=0.15)


def test_verdicts_resample_users_and_draws() -> None:
    asked = {"cold_items": task()}
    answers = judge.answer_sets(asked, [("good", GOOD), ("noise", NOISE)], [20])[0]
    (row,) = judge.paired_verdicts(answers, answers, [("good", "noise")], [20], 0)
    assert (row["probe"], row["measure"], row["verdict"]) == ("cold_items", "recall@20", "better")
    lucky = answers["cold_items"]["noise"] + np.array([0.9, *[-0.05] * 9])  # better in one draw of ten
    answers = {"cold_items": {"lucky": lucky, "noise": answers["cold_items"]["noise"]}}
    (row,) = judge.paired_verdicts(answers, answers, [("lucky", "noise")], [20], 0)
    assert row["raw"]["difference"] == pytest.approx(0.045)
    assert row["verdict"] == "undecided"
