"""What features add to interactions, and how far behaviour supports their neighbours: beside slow versions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

import schemas
from pipeline.evaluation.metrics import evaluate
from pipeline.models import MODELS
from pipeline.models.base import Inputs
from pipeline.probe import asking, behaviour_support, linear_cf, sampled
from pipeline.probe.base import Data
from pipeline.report import probes as facts

USERS, ITEMS, HOME = 200, 200, 10


def data() -> Data:
    """Return users who stay among ten items, of which features say which ten they are."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        home = HOME * int(rng.integers(ITEMS // HOME))
        mine = np.r_[home + rng.permutation(HOME)[:4], rng.integers(ITEMS)]
        rows += [(user, int(i), part) for i, part in zip(mine, (0, 0, 1, 2, 0), strict=True)]
    user, item, part = np.unique(np.array(rows), axis=0).T
    columns = {
        "user_id": pa.array(user, pa.int32()), "item_id": pa.array(item, pa.int32()),
        "rating": pa.nulls(len(user), pa.float32()), "timestamp": pa.array(np.arange(len(user)), pa.int64()),
        "split": pa.array(part, pa.int8()),
    }  # fmt: skip
    return Data(schemas.check(pa.table(columns), schemas.INTERACTIONS), ITEMS, [])


def towns() -> np.ndarray:
    rng = np.random.default_rng(1)
    which = np.eye(ITEMS // HOME)[np.arange(ITEMS) // HOME]
    return (which + 0.1 * rng.normal(size=which.shape)).astype(np.float32)


def test_the_gain_is_that_of_l3ae_over_ease_as_the_models_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cf, "SHARES", (0.7,))
    monkeypatch.setattr(linear_cf, "CONTENT_RIDGES", (1.0,))
    task, features = linear_cf.ask(data()), towns()
    assert isinstance(task, linear_cf.Linear)
    ridge, split = task.ease[1], task.split
    inputs = Inputs(split, torch.from_numpy(features), None, torch.device("cpu"))
    settings = {"ease": {"l2": ridge}, "l3ae": {"l2": 0.3 * ridge, "distil": 0.7 * ridge, "content_l2": 1.0}}
    found = {}
    for name, keys in settings.items():
        vectors = MODELS[name](inputs, MODELS[name].Params.model_validate(keys))()
        judged = evaluate(*vectors, split, "test", [20])
        found[name] = judged.per_user["recall", 20]
    assert judged.users.tolist() == linear_cf.answering(split, "test").tolist()
    np.testing.assert_allclose(task.base, found["ease"])
    np.testing.assert_allclose(task.answer(features, 0), found["l3ae"] - found["ease"])


def test_real_features_add_and_random_ones_do_not() -> None:
    task = linear_cf.ask(data())
    assert isinstance(task, linear_cf.Linear)
    noise = np.random.default_rng(2).normal(size=(ITEMS, 8)).astype(np.float32)
    sets = {"towns": towns(), "noise": noise, "flat": np.ones((ITEMS, 3), np.float32)}
    answers = {name: task.answer(x, 0) for name, x in sets.items()}
    figures = task.summary(answers)
    assert figures["towns"]["gain"] > 0.02
    assert figures["towns"]["gain"] > figures["noise"]["gain"] + 0.02
    assert abs(figures["flat"]["gain"]) < 0.02
    assert figures["users"] == len(task.base)
    assert figures["chance"] == {"recall@20": pytest.approx(task.base.mean(), abs=1e-6), "gain": 0.0}
    np.testing.assert_array_equal(task.answer(towns(), 0), task.answer(towns(), 1))  # nothing is drawn


def test_what_cannot_be_asked_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cf, "GIB", 1e-6)
    assert linear_cf.ask(data()) == "the closed form takes 0.0 GiB for 200 items, more than 1e-06"
    whole = data()
    train = pa.array(np.zeros(len(whole.interactions)), pa.int8())
    only = Data(whole.interactions.set_column(4, "split", train), ITEMS, [])
    assert linear_cf.ask(only) == "no user has train and test items, or none train and valid ones"
    none = Data(whole.interactions.slice(0, 0), ITEMS, [])
    assert behaviour_support.ask(none) == "no two items share a train user"


def test_support_is_the_share_of_neighbours_that_were_had_together() -> None:
    given, features = data(), towns()
    task = behaviour_support.ask(given)
    assert isinstance(task, behaviour_support.Support)
    train = given.interactions.filter(pa.compute.equal(given.interactions["split"], 0))
    had = {i: set(train.filter(pa.compute.equal(train["item_id"], i))["user_id"].to_pylist()) for i in range(ITEMS)}
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = []
    for i in task.items:
        near = [j for j in np.argsort(-(unit @ unit[i])) if j != i][:10]
        expected.append(np.mean([bool(had[i] & had[j]) for j in near]))
    np.testing.assert_allclose(task.answer(features, 0), expected)


def test_constant_features_have_the_support_of_chance() -> None:
    task = behaviour_support.ask(data())
    assert isinstance(task, behaviour_support.Support)
    figures = task.summary({"flat": task.answer(np.ones((ITEMS, 3), np.float32), 0)})
    assert figures["flat"]["share"] == pytest.approx(figures["chance"]["share"], abs=1e-6)


def test_a_large_catalogue_is_asked_of_drawn_items(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = behaviour_support.ask(data())
    monkeypatch.setattr(sampled, "FEWEST", 50)
    monkeypatch.setattr(sampled, "COSINES", 1)
    part = behaviour_support.ask(data())
    assert isinstance(whole, behaviour_support.Support)
    assert isinstance(part, behaviour_support.Support)
    assert 20 < len(part.items) <= 50
    assert set(part.items) < set(whole.items)
    every = dict(zip(whole.items.tolist(), whole.answer(towns(), 0).tolist(), strict=True))
    assert part.answer(towns(), 0).tolist() == [every[i] for i in part.items.tolist()]


def test_both_stand_in_the_tables_of_the_probes() -> None:
    asked = asking.ask(data())
    answers = asking.answers(asked, [("towns", towns())], [5, 20], 0)
    tables = {t.heading: t for t in facts.tables(asking.summaries(asked, answers, [5, 20]))}
    assert tables["Linear CF"].head == ["feature set", "recall@20", "gain"]
    assert [row[0] for row in tables["Behaviour support"].rows] == ["towns", "chance"]
