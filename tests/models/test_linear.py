"""Linear and training-free models against slow versions, by column or user."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alignrec.pipeline.dataset.split import Pairs, Split
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.models import MODELS, ease
from alignrec.pipeline.models.base import Inputs, Recommender
from alignrec.pipeline.models.metrics import topk
from alignrec.pipeline.models.scores import Filter

USERS, ITEMS, WIDTH = 60, 45, 12
EMPTY = Pairs(np.empty(0, np.int32), np.empty(0, np.int32))


def toys() -> tuple[Split, np.ndarray]:
    """Return a split whose last item has no interactions, and features with one row of zeros."""
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.integers(USERS, size=500), rng.integers(ITEMS - 1, size=500)], axis=1).astype(np.int32)
    features = rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)
    features[7] = 0
    return Split(USERS, ITEMS, Pairs(*np.unique(drawn, axis=0).T), EMPTY, EMPTY), features


SPLIT, FEATURES = toys()
X = np.zeros((USERS, ITEMS))
X[SPLIT.train.users, SPLIT.train.items] = 1
UNIT = FEATURES / np.maximum(np.linalg.norm(FEATURES, axis=1, keepdims=True), 1e-12)


def build(model: str, parts: tuple[int, ...] = (), **settings: object) -> Recommender:
    inputs = Inputs(SPLIT, torch.from_numpy(FEATURES), None, torch.device("cpu"), parts)
    return MODELS[model](inputs, MODELS[model].Params.model_validate(settings))


def scores(network: Recommender) -> np.ndarray:
    """Return the scores of all users and items, [U, I]."""
    user, item = network()
    if isinstance(item, Filter):
        return item.scores(user).numpy()
    return np.asarray(user @ item.T)


def ridge(x: np.ndarray, l2: np.ndarray, target: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Return argmin |target - x b|^2 + sum l2_i (b_i - towards_i)^2."""
    return np.linalg.solve(x.T @ x + np.diag(l2), x.T @ target + l2 * towards)


def columns(x: np.ndarray, l2: float, distil: float = 0.0, towards: np.ndarray | None = None) -> np.ndarray:
    """Return B [I, I], column by column: each item regressed on all others."""
    b = np.zeros((ITEMS, ITEMS))
    for j in range(ITEMS):
        others = np.delete(np.arange(ITEMS), j)
        aim = np.zeros(ITEMS - 1) if towards is None else distil / (l2 + distil) * towards[others, j]
        b[others, j] = ridge(x[:, others], np.full(ITEMS - 1, l2 + distil), x[:, j], aim)
    return b


def test_ease_is_a_ridge_regression_of_each_item_on_the_others() -> None:
    np.testing.assert_allclose(scores(build("ease", l2=5.0)), X @ columns(X, 5), atol=2e-5)


@pytest.mark.parametrize(("l2", "distil"), [(5.0, 7.0), (-3.0, 8.0)])
def test_l3ae_is_drawn_to_the_ease_of_features(l2: float, distil: float) -> None:
    expected = X @ columns(X, l2, distil, columns(UNIT.T, 2))
    ours = scores(build("l3ae", l2=l2, content_l2=2.0, distil=distil))
    np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_a_matrix_beyond_the_memory_is_refused_with_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"45 items .*gib 1e-06"):
        build("ease", gib=1e-6)
    with pytest.raises(UserError, match=r"100,000 .* 37\.3 GiB.* 24"):
        ease.check_memory(100_000, 24, "EASE")
    assert capsys.readouterr().err == ""
    ease.check_memory(50_000, 24, "EASE")
    assert capsys.readouterr().err == "EASE: a matrix of 50,000 x 50,000 items takes 9.3 GiB\n"


@pytest.mark.parametrize("block", [4, 7, 512])
def test_an_inverse_by_blocks_is_the_inverse(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "MATRIX_BLOCK_ROWS", block)
    gram = ease.gram_matrix(ease.adjacency.interaction_matrix(SPLIT))
    np.testing.assert_array_equal(gram, X.T @ X)
    inverse = ease.invert_ridge(gram.copy(), 3.0, "ease")
    np.testing.assert_allclose(inverse @ (gram + 3 * np.eye(ITEMS)), np.eye(ITEMS), atol=1e-5)
    np.testing.assert_array_equal(inverse, inverse.T)


def test_what_cannot_be_inverted_names_the_key() -> None:
    with pytest.raises(UserError, match=r"ease: .*l2"):
        ease.invert_ridge(-np.eye(3, dtype=np.float32), 0.0, "ease")


def test_a_filter_ranks_as_its_scores_say_also_among_some_items() -> None:
    user, item = build("ease", l2=5.0)()
    slow = X @ columns(X, 5)
    slow[X > 0] = -np.inf
    some = np.arange(3, ITEMS, 2)
    top, cold = (topk(user, item, 5, SPLIT.train, None, candidates) for candidates in (None, some))
    np.testing.assert_array_equal(top, np.argsort(-slow, axis=1, kind="stable")[:, :5])
    np.testing.assert_array_equal(cold, some[np.argsort(-slow[:, some], axis=1, kind="stable")[:, :5]])


FIRST_SOLVED = """
import test_linear
from alignrec.pipeline.models import ease
from threadpoolctl import threadpool_info
def look(*given, solve=ease.EASE.solve_weights):
    weights = solve(*given)
    print({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
    return weights
ease.EASE.solve_weights = look
test_linear.torch.set_num_threads(1)
test_linear.build("ease")
"""


def test_the_threads_are_limited_of_a_blas_that_the_first_model_loads() -> None:
    command, free = [sys.executable, "-c", FIRST_SOLVED], {k: v for k, v in os.environ.items() if "THREADS" not in k}
    done = subprocess.run(command, cwd=Path(__file__).parent, env=free, capture_output=True, text=True, check=True)
    assert done.stdout == "{1}\n"
