"""The page in a real browser: no errors or requests, and search and map work on any screen."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from shop import toy

from alignrec import schemas
from alignrec.pipeline import io
from alignrec.pipeline.runtime.layout import Layout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = toy.outputs(tmp_path_factory.mktemp("shop"))
    tested = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "f" * 16, "model": "alignrec", "features": "beit3"}
    figures = {"slice": "popularity", "k": 20, "seeds": 3, "n": 7, "mean": 0.3, "mean_low": 0.25, "mean_high": 0.35}
    tail = [tested | figures | {"label": label} for label in ("cold", *map(str, range(1, 11)))]
    io.write_table(pa.Table.from_pylist(tail, schemas.TAIL), layout.study("tail"), schemas.TAIL)
    toy.run("report", toy.params(report={"gallery_items": 2}), layout.root)
    return layout


@pytest.fixture(scope="module")
def path(layout: Layout) -> Path:
    return layout.report / "index.html"


@pytest.fixture
def visit(tab: Any, path: Path) -> Iterator[Any]:
    """The page, which has nothing to say on the console."""
    said = list[str]()
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(path.as_uri())
    yield tab
    assert said == []


def test_it_requests_nothing_but_itself(tab: Any, path: Path) -> None:
    asked = list[str]()
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    tab.mouse.wheel(0, 20_000)
    assert [address for address in asked if not address.startswith("data:")] == [path.as_uri()]


def test_the_search_finds_by_words_category_and_number_and_forgets(visit: Any) -> None:
    rows = visit.locator("#entries tr")
    assert rows.count() == 2
    for query, titles in (
        ("red", ["red apple", "red ball"]),
        ("TREE green", ["green tree"]),
        ("cars", ["blue car"]),
        ("3", ["blue car"]),
        ("a5", ["green tree"]),
        ("nothing such", []),
        ("ed", []),  # a part of a word is none
        ("script", [toy.TITLES[2]]),
    ):
        visit.fill("#query", query)
        assert rows.locator(".title").all_inner_texts() == titles
        assert visit.inner_text("#count") == f"{len(titles)} found"
    visit.fill("#query", "")
    assert rows.count() == 2


def place(visit: Any, item: int) -> tuple[float, float]:
    """Return the position of an item on the screen."""
    plane = visit.locator("#plane")
    plane.scroll_into_view_if_needed()
    visit.wait_for_timeout(50)
    box = plane.bounding_box()
    assert box
    x, y = visit.evaluate("item => plane.at(item)", item)
    return box["x"] + x, box["y"] + y


def test_a_click_on_the_map_shows_the_item_with_its_neighbours_under_each_set(visit: Any) -> None:
    visit.mouse.move(*place(visit, 3))
    assert visit.locator("#tip .title").inner_text() == "blue car"
    visit.mouse.click(*place(visit, 5))
    panel = visit.locator("#panel")
    assert panel.locator("h3").inner_text() == "green tree"
    assert panel.locator(".strip .name").all_inner_texts() == ["beit3", "minilm-cnn", "random"]
    assert panel.locator(".strip .pic").count() == 9
    panel.locator(".strip button").first.click()  # and so on, from item to item
    assert panel.locator("h3").inner_text() != "green tree"


@pytest.mark.parametrize("width", [360, 390, 768])
def test_a_phone_cuts_no_image_no_mark_and_no_figure(visit: Any, width: int) -> None:
    visit.set_viewport_size({"width": width, "height": 844})
    assert visit.evaluate("document.documentElement.scrollWidth") <= width
    edges = "nodes => nodes.filter(n => n.offsetParent).map(n => n.getBoundingClientRect()).map(r => [r.left, r.right])"
    for part in (".pic", ".track", ".figure", "figcaption", ".headline", "#plane", "select"):
        placed = visit.locator(part).evaluate_all(edges)
        assert placed, part
        assert all(left >= 0 and right <= width for left, right in placed), part
