"""Three users: drawn by a rule, with what they have, what they bought in test, and what each model recommends."""

from pathlib import Path

import numpy as np
import pytest
import toy

from pipeline.facts import users
from pipeline.facts.outputs import Outputs
from pipeline.interactions import split
from pipeline.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return toy.outputs(tmp_path)


def read(layout: Layout) -> Outputs:
    return Outputs(layout, released="beit3")


def test_each_user_has_a_history_the_latest_first_and_lists_without_empty_places(layout: Layout) -> None:
    drawn = users.users(read(layout), seed=1)
    assert len(drawn) == users.USERS
    for user in drawn:
        first = user.number  # the toy's users have items u, u + 1 in train, in this order, and u + 3 in test
        assert user.history == [(first + 1) % toy.ITEMS, first % toy.ITEMS]
        assert user.trained == 2
        assert user.wanted == [(first + 3) % toy.ITEMS]
        assert user.ranked == {"AlignRec on beit3": [5, 4, 3], "LightGCN": [5, 4, 3]}


def test_the_draw_depends_on_the_seed_alone_and_takes_every_length(layout: Layout) -> None:
    rng = np.random.default_rng(0)
    length = rng.permutation(np.repeat([1, 5, 20], 10))  # of 30 users
    train = np.repeat(np.arange(30), length)
    pairs = split.Pairs(train.astype(np.int32), np.zeros(len(train), np.int32))
    test = split.Pairs(np.arange(30, dtype=np.int32), np.zeros(30, np.int32))
    parts = split.Split(30, 1, pairs, pairs, test)
    draws = {tuple(users.drawn(parts, seed)) for seed in range(20)}
    assert {tuple(length[list(draw)]) for draw in draws} == {(1, 5, 20)}
    assert len(draws) > 1
    assert [*users.drawn(parts, 3)] == [*users.drawn(parts, 3)]


@pytest.mark.parametrize("missing", ["interactions", "results", "items"])
def test_no_user_is_shown_where_a_stage_is_missing(layout: Layout, missing: str) -> None:
    getattr(layout, missing).unlink()
    assert users.users(read(layout), seed=1) == []
