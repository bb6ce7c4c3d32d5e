"""Controls: random codes and codes of other items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from coding import QUICK, SHAPE, fitted, given, groups

from pipeline.config.base import checked
from pipeline.errors import UserError
from pipeline.semantic_ids.controls import Shuffled, ShuffledParams
from pipeline.semantic_ids.registry import METHODS

X = groups()


def test_random_codes_of_items_stay_when_more_come_and_others_follow_from_their_vector() -> None:
    made = fitted("random", X)
    codes = made.assign(given(X))
    np.testing.assert_array_equal(made.assign(given(X[:100])), codes[:100])
    assert len(np.unique(codes, axis=0)) > 250  # of 512
    others = made.encode(X)
    assert len(np.unique(others, axis=0)) > 250
    np.testing.assert_array_equal(made.encode(X[::-1]), others[::-1])
    assert (fitted("random", X, seed=4).encode(X) != others).any(axis=1).mean() > 0.9
    assert (made.tensors()["seed"].tolist(), made.tensors()["width"].tolist()) == ([3], [10])


def test_shuffled_codes_are_those_of_the_method_in_another_order() -> None:
    own, made = fitted("residual-kmeans", X).assign(given(X)), fitted("shuffled", X)
    codes = made.assign(given(X))
    assert sorted(map(tuple, codes.tolist())) == sorted(map(tuple, own.tolist()))
    assert (codes == own).all(axis=1).mean() < 0.2


def test_codes_of_categories_follow_the_path_and_are_drawn_where_it_ends() -> None:
    codes, drawn = fitted("categories", X).assign(given(X)), fitted("random", X).assign(given(X))
    named = np.arange(len(X)) % 7 != 0
    np.testing.assert_array_equal(codes[~named], drawn[~named])
    np.testing.assert_array_equal(codes[:, -1], drawn[:, -1])
    for i in np.flatnonzero(named)[:30]:
        assert codes[i, 0] == i % 2 + 1  # after the items without a category
        assert codes[i, 1] == i % 3
    kind = METHODS["categories"]
    with pytest.raises(UserError, match="no item has a category"):
        kind.fit(given(X), SHAPE, kind.Params(), 0).assign(replace(given(X), paths=[]))


def test_it_shuffles_the_method_and_the_settings_that_are_named() -> None:
    made = fitted("shuffled", X, method="rqvae", settings=QUICK["rqvae"] | {"epochs": 1})
    assert isinstance(made, Shuffled)
    one = fitted("rqvae", X, epochs=1).tensors()
    assert made.tensors().keys() == {f"rqvae/{name}" for name in one} | {"seed"}
    np.testing.assert_array_equal(made.tensors()["rqvae/codebooks"], one["codebooks"])
    assert (fitted("rqvae", X).tensors()["codebooks"] != one["codebooks"]).any()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"method": "residual-kmean"}, r"'shuffled.method': .*did you mean 'residual-kmeans'"),
        ({"method": "random"}, r"'shuffled.method': .*'random' is a control itself"),
        ({"methods": "rqvae"}, r"'shuffled.methods'; did you mean 'method'\?"),
    ],
)
def test_misspelt_settings_are_refused(settings: dict[str, str], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        checked(ShuffledParams, settings, "shuffled")
    with pytest.raises(UserError, match=r"'semantic_ids.settings.shuffled.settings.iteration'"):
        fitted("shuffled", X, settings={"iteration": 3})


def test_tensors_of_no_method_are_refused() -> None:
    seed = {"seed": np.zeros(1, np.int64)}
    for tensors in (seed, seed | {"random/seed": np.zeros(1, np.int64)}, seed | {"nothing/x": np.zeros(1, np.float32)}):
        with pytest.raises(UserError, match="shuffled"):
            Shuffled.from_tensors(tensors, SHAPE)
