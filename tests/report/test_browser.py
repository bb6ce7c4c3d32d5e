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
        ("nothing such", []),
    ):
        visit.tab.fill("#query", query)
        assert rows.locator(".title").all_inner_texts() == titles
        assert visit.tab.inner_text("#count") == f"{len(titles)} found"
    visit.tab.fill("#query", "")
    assert rows.count() == 2


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


def test_hovering_a_dot_of_the_map_shows_its_item(visit: Visit) -> None:
    visit.tab.click("#map > summary")
    dot = visit.tab.locator("#dots circle").nth(3)
    dot.scroll_into_view_if_needed()
    dot.dispatch_event("pointerover")
    assert visit.tab.locator("#tip .title").inner_text() == "blue car"
    assert visit.tab.locator("#tip .pic").is_visible()
    visit.tab.locator("#dots").dispatch_event("pointerleave")
    assert visit.tab.locator("#tip").is_hidden()


def test_another_feature_set_moves_the_dots(visit: Visit) -> None:
    visit.tab.click("#map > summary")
    dots = visit.tab.locator("#dots circle")
    where = "nodes => nodes.map(n => [n.getAttribute('cx'), n.getAttribute('cy')])"
    before = dots.evaluate_all(where)
    visit.tab.select_option("#set", "minilm-cnn")
    assert dots.evaluate_all(where) != before
    visit.tab.select_option("#set", "beit3")
    assert dots.evaluate_all(where) == before


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
    for part in (".pic", ".track", ".figure", ".bar", "figcaption", "#verdict li"):
        placed = visit.tab.locator(part).evaluate_all(edges)
        assert placed, part
        assert all(left >= 0 and right <= width for left, right in placed), part


def test_a_link_into_what_is_folded_opens_it(visit: Visit) -> None:
    chart = visit.tab.locator("#curves-train svg").first
    assert not chart.is_visible()
    visit.tab.click("nav a[href='#curves-train']")
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
