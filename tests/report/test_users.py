"""Three users on the page: what they bought in test is framed, and the images of their items are loaded."""

from pathlib import Path

import pytest
import toy

from pipeline.facts.outputs import Outputs
from pipeline.facts.users import users
from pipeline.layout import Layout
from pipeline.report import page
from pipeline.run import Run, running
from stages import report


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return toy.outputs(tmp_path)


def test_what_was_bought_in_test_is_framed(layout: Layout) -> None:
    with running("report", "shop", toy.PARAMS, layout.root) as run:
        report.main(run)
    text = (layout.report / "index.html").read_text()
    section = text.split('<section id="users">')[1].split('<section id="results">')[0]
    seed = Run("report", "shop", toy.PARAMS, layout.root).seed("users")
    shown = users(Outputs(layout, released="beit3"), seed)
    hits = sum(item in user.wanted for user in shown for items in user.ranked.values() for item in items)
    assert section.count("framed") == hits + sum(len(user.wanted) for user in shown)
    assert "<script>" not in section


def test_images_of_users_items_are_loaded_where_the_page_cannot_search_all(layout: Layout) -> None:
    outputs = Outputs(layout, released="beit3")
    chosen = users(outputs, seed=1)
    view = page.view(outputs, None, chosen, seed=1)
    assert view
    shown = set[int]().union(*(user.shown for user in chosen))
    assert set(view.images) == {item for item in shown if toy.COLOURS[item]}
