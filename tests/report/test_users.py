"""Three users: drawn by a rule, with what they have, what they bought in test, and what each model recommends."""

from pathlib import Path

import pytest
import toy

from pipeline.layout import Layout
from pipeline.report import users
from pipeline.report.outputs import Outputs


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return toy.outputs(tmp_path)


def test_each_user_has_a_history_the_latest_first_and_lists_without_empty_places(layout: Layout) -> None:
    drawn = users.users(Outputs(layout, released="beit3"), seed=1)
    assert len(drawn) == users.USERS
    for user in drawn:
        first = user.number  # the toy's users have items u, u + 1 in train, in this order, and u + 3 in test
        assert user.history == [(first + 1) % toy.ITEMS, first % toy.ITEMS]
        assert user.trained == 2
        assert user.wanted == [(first + 3) % toy.ITEMS]
        assert user.ranked == {"AlignRec on beit3": [5, 4, 3], "LightGCN": [5, 4, 3]}


@pytest.mark.parametrize("missing", ["interactions", "results", "items"])
def test_no_user_is_shown_where_a_stage_is_missing(layout: Layout, missing: str) -> None:
    getattr(layout, missing).unlink()
    assert users.users(Outputs(layout, released="beit3"), seed=1) == []
