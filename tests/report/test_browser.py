"""The page in a real browser: loads without errors, search and hover work, nothing leaves it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import toy

import schemas
from pipeline import io
from pipeline.run import running
from stages import report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


class Visit:
    """A loaded page, its messages and its requests."""

    def __init__(self, tab: "sync_api.Page", path: Path) -> None:
        self.tab = tab
        self.messages: list[str] = []
        self.requests: list[str] = []
        tab.on("console", lambda message: self.messages.append(message.text))
        tab.on("pageerror", lambda error: self.messages.append(str(error)))
        tab.on("dialog", lambda dialog: (self.messages.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.goto(path.as_uri())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    layout = toy.outputs(root)
    run = {"dataset": "shop", "protocol": "mmrec", "fingerprint": "f" * 16, "model": "alignrec", "features": "beit3"}
    figures = {"slice": "popularity", "k": 20, "seeds": 3, "n": 7, "mean": 0.3, "mean_low": 0.25, "mean_high": 0.35}
    tail = [run | figures | {"label": label} for label in ("cold", *map(str, range(1, 11)))]
    io.write_table(pa.Table.from_pylist(tail, schemas.TAIL), layout.study("tail"), schemas.TAIL)
    params = toy.PARAMS.model_copy(update={"report": toy.PARAMS.report.model_copy(update={"gallery_items": 2})})
    with running("report", "shop", params, root) as run:
        report.main(run)
    return layout.report / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: "sync_api.Browser", path: Path) -> Iterator[Visit]:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    yield Visit(tab, path)
    tab.close()


def test_it_loads_without_errors_and_requests_nothing_else(visit: Visit, path: Path) -> None:
    visit.tab.mouse.wheel(0, 20_000)
    assert visit.messages == []
    assert [a for a in visit.requests if not a.startswith("data:")] == [path.as_uri()]


def test_the_search_finds_by_words_category_and_number_and_forgets(visit: Visit) -> None:
    rows = visit.tab.locator("#entries tr")
    assert rows.count() == 2
    for query, titles in (
        ("red", ["red apple", "red ball"]),
        ("TREE green", ["green tree"]),
        ("cars", ["blue car"]),
        ("3", ["blue car"]),
        ("a5", ["green tree"]),
        ("nothing such", []),
    ):
        visit.tab.fill("#query", query)
        assert rows.locator(".title").all_inner_texts() == titles
        assert visit.tab.inner_text("#count") == f"{len(titles)} found"
    visit.tab.fill("#query", "")
    assert rows.count() == 2


def test_where_no_item_has_all_words_those_with_the_most_are_found(visit: Visit) -> None:
    visit.tab.fill("#query", "apple red bicycle")
    assert visit.tab.locator("#entries .title").all_inner_texts() == ["red apple"]
    assert visit.tab.inner_text("#count") == "no item has all words; with 2 of 3: 1 found"
    visit.tab.fill("#query", "ed")  # a part of a word is none
    assert visit.tab.locator("#entries tr").count() == 0


def test_a_hostile_title_is_shown_as_text(visit: Visit) -> None:
    visit.tab.fill("#query", "script")
    assert visit.tab.locator("#entries .title").all_inner_texts() == [toy.TITLES[2]]
    assert visit.tab.locator("#entries .path").all_inner_texts() == ["<b>odd</b>"]
    assert visit.messages == []


def test_a_found_item_shows_its_neighbours_images(visit: Visit) -> None:
    visit.tab.fill("#query", "blue car")
    assert visit.tab.locator("#entries .near").count() == 3
    image = visit.tab.locator("#entries .near .pic[role=img]").first
    assert "url(" in image.evaluate("node => getComputedStyle(node).backgroundImage")
    assert image.get_attribute("title") in toy.TITLES


def place(visit: Visit, item: int) -> tuple[float, float]:
    """Return where an item is on the screen."""
    plane = visit.tab.locator("#plane")
    plane.scroll_into_view_if_needed()
    visit.tab.wait_for_timeout(50)
    box = plane.bounding_box()
    assert box
    x, y = visit.tab.evaluate("item => plane.at(item)", item)
    return box["x"] + x, box["y"] + y


def test_hovering_the_map_shows_an_item(visit: Visit) -> None:
    visit.tab.mouse.move(*place(visit, 3))
    assert visit.tab.locator("#tip .title").inner_text() == "blue car"
    assert visit.tab.locator("#tip .pic").is_visible()
    visit.tab.mouse.move(5, 5)
    assert visit.tab.locator("#tip").is_hidden()


def test_a_click_on_the_map_shows_the_item_with_its_neighbours_under_each_set(visit: Visit) -> None:
    visit.tab.mouse.click(*place(visit, 5))
    panel = visit.tab.locator("#panel")
    assert panel.locator("h3").inner_text() == "green tree"
    assert panel.locator(".strip .name").all_inner_texts() == ["beit3", "minilm-cnn", "random"]
    assert panel.locator(".strip .pic").count() == 9
    assert "cold" in panel.locator(".badge").all_inner_texts()
    panel.locator(".strip button").first.click()  # and so on, from item to item
    assert panel.locator("h3").inner_text() != "green tree"


def test_a_click_on_an_image_of_the_list_chooses_the_item(visit: Visit) -> None:
    visit.tab.fill("#query", "blue car")
    visit.tab.locator("#entries button").first.click()
    assert visit.tab.locator("#panel h3").inner_text() == "blue car"


def test_another_feature_set_moves_the_items(visit: Visit) -> None:
    where = "() => [...plane.places()]"
    before = visit.tab.evaluate(where)
    visit.tab.select_option("#set", "minilm-cnn")
    assert visit.tab.evaluate(where) != before
    visit.tab.select_option("#set", "beit3")
    assert visit.tab.evaluate(where) == before


def test_the_map_is_drawn_zooms_and_comes_home(visit: Visit) -> None:
    drawn = "() => document.getElementById('plane').toDataURL()"
    visit.tab.wait_for_timeout(100)
    before, at = visit.tab.evaluate(drawn), visit.tab.evaluate("plane.at(0)")
    visit.tab.locator("#plane").focus()
    visit.tab.keyboard.press("+")
    visit.tab.keyboard.press("ArrowLeft")
    visit.tab.wait_for_timeout(100)
    assert visit.tab.evaluate("plane.at(0)") != at
    assert visit.tab.evaluate(drawn) != before
    visit.tab.click("#home")
    assert visit.tab.evaluate("plane.at(0)") == at


@pytest.mark.parametrize("by", ["category", "popularity", "status"])
def test_each_colour_has_a_legend(visit: Visit, by: str) -> None:
    visit.tab.select_option("#by", by)
    names = visit.tab.locator("#legend li").all_inner_texts()
    known = {"category": "items", "popularity": "none in train", "status": "complete"}
    assert known[by] in names


def test_a_lasso_lists_what_is_inside_and_clears(visit: Visit) -> None:
    visit.tab.click("#lasso")
    x, y = place(visit, 3)
    visit.tab.mouse.move(x - 15, y - 15)
    visit.tab.mouse.down()
    for corner in ((15, -15), (15, 15), (-15, 15), (-15, -10)):
        visit.tab.mouse.move(x + corner[0], y + corner[1])
    visit.tab.mouse.up()
    assert "blue car" in visit.tab.locator("#entries .title").all_inner_texts()
    assert visit.tab.locator("#entries tr").count() < 6
    visit.tab.click("#count button")
    assert visit.tab.locator("#entries tr").count() == 2
    assert visit.tab.locator("#lasso").get_attribute("aria-pressed") == "false"


def test_facets_list_their_items_alone_and_with_words(visit: Visit) -> None:
    chips = visit.tab.locator("#facets button")
    assert [text.split("\n")[0] for text in chips.all_inner_texts()] == [
        "no image1", "duplicate image5", "no text1", "cold1",
    ]  # fmt: skip
    chips.nth(1).click()
    visit.tab.fill("#query", "red")
    assert visit.tab.locator("#entries .title").all_inner_texts() == ["red apple", "red ball"]
    chips.nth(3).click()
    assert visit.tab.locator("#entries tr").count() == 0
    visit.tab.fill("#query", "")
    assert visit.tab.locator("#entries .title").all_inner_texts() == ["green tree"]
    chips.nth(3).click()
    assert visit.tab.locator("#entries tr").count() == 2


def test_a_column_shows_the_set_that_is_chosen(visit: Visit) -> None:
    cells = visit.tab.locator("#entries tr").first.locator("td")
    assert cells.evaluate_all("nodes => nodes.map(n => n.dataset.set)") == ["beit3", "minilm-cnn", "random"]
    visit.tab.select_option("th[data-column='1'] select", "random")
    assert cells.evaluate_all("nodes => nodes.map(n => n.dataset.set)") == ["beit3", "random", "random"]
    texts = cells.evaluate_all("nodes => nodes.map(n => n.innerHTML)")
    assert texts[1] == texts[2]


def test_marks_say_more_under_a_pointer(visit: Visit) -> None:
    visit.tab.locator("#results .track b").first.hover()
    assert visit.tab.inner_text("#tip").startswith("AlignRec on beit3: 0.31")
    visit.tab.locator("#mask .dot").nth(2).hover()
    assert "share masked" in visit.tab.inner_text("#tip")


def test_contents_stay_in_sight_and_show_where_the_reader_is(visit: Visit) -> None:
    visit.tab.locator("#probes").scroll_into_view_if_needed()
    visit.tab.evaluate("document.getElementById('probes').scrollIntoView()")
    visit.tab.wait_for_timeout(800)
    box = visit.tab.locator("nav").bounding_box()
    assert box
    assert box["y"] == pytest.approx(0, abs=1)
    assert visit.tab.locator("nav a[aria-current]").inner_text() == "Probes"


def test_cards_of_a_row_are_equally_high(visit: Visit) -> None:
    tops = visit.tab.locator("#results figure").evaluate_all(
        "nodes => nodes.map(n => n.getBoundingClientRect()).map(r => [r.top, r.height])"
    )
    assert len(tops) == 2
    assert tops[0] == pytest.approx(tops[1], abs=1)


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(visit: Visit, width: int) -> None:
    visit.tab.set_viewport_size({"width": width, "height": 800})
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_wide_screen_shows_every_column_without_scrolling(visit: Visit) -> None:
    visit.tab.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
    inside = "nodes => nodes.every(node => node.scrollWidth <= node.clientWidth)"
    assert visit.tab.locator(".scroll").evaluate_all(inside)
    last = visit.tab.locator("#entries tr").first.locator(".pic").last.bounding_box()
    assert last
    assert last["x"] + last["width"] <= 1280


@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_cuts_no_image_no_mark_and_no_figure(visit: Visit, width: int) -> None:
    visit.tab.set_viewport_size({"width": width, "height": 844})
    edges = "nodes => nodes.filter(n => n.offsetParent).map(n => n.getBoundingClientRect()).map(r => [r.left, r.right])"
    for part in (".pic", ".track", ".figure", ".bar", "figcaption", ".headline", "#plane", ".facet", "select"):
        placed = visit.tab.locator(part).evaluate_all(edges)
        assert placed, part
        assert all(left >= 0 and right <= width for left, right in placed), part


def test_a_link_into_what_is_folded_opens_it(visit: Visit) -> None:
    chart = visit.tab.locator("#curves-train svg").first
    assert not chart.is_visible()
    visit.tab.evaluate("location.hash = '#curves-train'")
    chart.wait_for(state="visible")
    assert not visit.tab.locator("#curves-pretrain svg").first.is_visible()


def test_the_keyboard_reaches_and_opens_what_is_folded(visit: Visit) -> None:
    summary = visit.tab.locator("#results summary")
    summary.focus()
    visit.tab.keyboard.press("Enter")
    assert visit.tab.locator("#results table").first.is_visible()


def test_every_image_and_picture_has_a_name(visit: Visit) -> None:
    named = "nodes => nodes.every(n => (n.getAttribute('aria-label') || n.textContent).trim())"
    for part in ("[role=img]", "figcaption", "summary", "h2", "h3", "th[scope=row]", ".rows li:not([aria-hidden])"):
        assert visit.tab.locator(part).evaluate_all(named), part


def test_dark_and_light_differ_and_stay_readable(browser: "sync_api.Browser", path: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(path.as_uri())
        style = "node => { const s = getComputedStyle(node); return [s.color, s.backgroundColor] }"
        ink, paper = tab.locator("body").evaluate(style)
        brightness = [sum(int(v) for v in c.strip("rgb()").split(",")) for c in (ink, paper)]
        seen[scheme] = paper
        assert abs(brightness[0] - brightness[1]) > 400
        tab.close()
    assert seen["light"] != seen["dark"]
