"""The pages in a real browser: no errors or requests, and search and map work on any screen."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import alignrec
from shop import featured, toy

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


@pytest.fixture(scope="module")
def pages(layout: Layout, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of the commands that compare, and the report."""
    folder = tmp_path_factory.mktemp("pages")
    newer = Layout(shutil.copytree(plain.parents[2], folder / "newer"), "shop")
    toy.write_features(newer, "beit3", featured.vectors(newer, "beit3")[::-1])
    toy.run("publish", toy.PARAMS, newer.root)
    compared = folder / "compare"
    alignrec("compare", plain, "beit3", "minilm-cnn", "--to", compared)
    alignrec("diff", plain, newer.release, "--page", folder / "diff.html", "--root", newer.root)
    report = layout.report / "index.html"
    pages = {"report": report, "compare": compared / "index.html"}
    return pages | {"diff": folder / "diff.html"}


@pytest.mark.parametrize("name", ["report", "compare", "diff"])
def test_every_page_fits_four_widths_in_light_and_dark(tab: Any, pages: dict[str, Path], name: str) -> None:
    said = list[str]()
    tab.on("console", lambda message: said.append(message.text))
    broken = """rows => rows.filter(row => {
        const heads = [...row.children], style = getComputedStyle(heads[0]);
        const words = Math.max(...heads.map(head => head.textContent.split(" ").length));
        const height = heads[0].clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
        return height > (words + 0.5) * parseFloat(style.lineHeight);
    }).map(row => row.textContent)"""
    papers = set()
    for width in (360, 768, 1280, 1920):
        tab.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            tab.goto(pages[name].as_uri())
            tab.locator("details").evaluate_all("nodes => nodes.forEach(n => n.open = true)")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.locator(".table thead tr").evaluate_all(broken) == []  # no word of a head is cut
            papers.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(papers) == 2
    assert said == []
