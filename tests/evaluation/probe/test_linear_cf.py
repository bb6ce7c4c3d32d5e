"""Linear CF against slow versions."""

import numpy as np
import pytest
import torch
from shop import tastes

from alignrec.pipeline.dataset.split import load_split
from alignrec.pipeline.evaluation.probe import linear_cf
from alignrec.pipeline.evaluation.probe.registry import Data
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.models.base import Inputs
from alignrec.pipeline.models.metrics import evaluate_vectors

USERS, ITEMS, HOME = 200, 200, 10


def data() -> Data:
    """Return users with items of one group of ten, which the features identify."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        home = HOME * int(rng.integers(ITEMS // HOME))
        mine = np.r_[home + rng.permutation(HOME)[:4], rng.integers(ITEMS)]
        rows += [(user, int(i), part) for i, part in zip(mine, (0, 0, 1, 2, 0), strict=True)]
    return Data(tastes.interactions(sorted({*rows})), ITEMS)


def towns() -> np.ndarray:
    rng = np.random.default_rng(1)
    which = np.eye(ITEMS // HOME)[np.arange(ITEMS) // HOME]
    return (which + 0.1 * rng.normal(size=which.shape)).astype(np.float32)


def test_the_gain_is_that_of_l3ae_over_ease_as_the_models_have_them() -> None:
    split, features = load_split(data().interactions, USERS, ITEMS), towns()
    task = linear_cf.LinearCF(split, shares=(0.7,), content_ridges=(1.0,))
    ridge = task.ease[1]
    inputs = Inputs(split, torch.from_numpy(features), None, torch.device("cpu"))
    settings = {"ease": {"l2": ridge}, "l3ae": {"l2": 0.3 * ridge, "distil": 0.7 * ridge, "content_l2": 1.0}}
    found = {}
    for name, keys in settings.items():
        vectors = MODELS[name](inputs, MODELS[name].Params.model_validate(keys))()
        judged = evaluate_vectors(*vectors, split, "test", [20])
        found[name] = judged.per_user["recall", 20]
    assert judged.users.tolist() == linear_cf.users_with_targets(split, "test").tolist()
    np.testing.assert_allclose(task.base, found["ease"])
    np.testing.assert_allclose(task.answer(features), found["l3ae"] - found["ease"])


def test_of_equally_good_strengths_of_ease_the_first_is_taken() -> None:
    rows = [(user, item, part) for user in range(6) for part, item in enumerate((user, user + 6, user + 12))]
    split = load_split(tastes.interactions(rows), 6, 60)  # items that no two users share
    recall, ridge, _ = linear_cf.LinearCF(split).ease
    assert (recall, ridge) == (1.0, linear_cf.RIDGES[0])


def test_real_features_add_and_random_ones_do_not() -> None:
    task = linear_cf.build_task(data())
    assert isinstance(task, linear_cf.LinearCF)
    noise = np.random.default_rng(2).normal(size=(ITEMS, 8)).astype(np.float32)
    sets = {"towns": towns(), "noise": noise, "flat": np.ones((ITEMS, 3), np.float32)}
    answers = {name: task.answer(x) for name, x in sets.items()}
    figures = task.summary(answers)
    assert figures["towns"]["gain"] > 0.02
    assert figures["towns"]["gain"] > figures["noise"]["gain"] + 0.02
    assert abs(figures["flat"]["gain"]) < 0.02
    error = np.std(answers["towns"]) / np.sqrt(figures["users"])
    assert figures["towns"]["gain_se"] == pytest.approx(error, abs=1e-6)
    assert figures["users"] == len(task.base)
    assert figures["chance"] == {"recall@20": pytest.approx(task.base.mean(), abs=1e-6), "gain": 0.0}
    np.testing.assert_array_equal(task.answer(towns()), task.answer(towns(), 1))  # nothing is drawn
