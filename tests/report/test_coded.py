"""Semantic IDs in the report: figures beside those of controls, and items by prefix in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toy

from pipeline.facts import codes as facts
from pipeline.layout import Layout
from pipeline.report import judged
from pipeline.run import running
from stages import report, semantic_ids

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECTION = {"features": ["beit3"], "methods": ["residual-kmeans", "random"], "levels": 2, "codes": 2}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    root = tmp_path_factory.mktemp("shop")
    made = toy.outputs(root)
    params = toy.params(semantic_ids=SECTION)
    for stage in (semantic_ids, report):
        with running(stage.__name__.removeprefix("stages."), "shop", params, root) as run:
            stage.main(run)
    return made


@pytest.fixture
def tab(layout: Layout) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        messages: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto((layout.report / "index.html").as_uri())
        yield page
        assert messages == []
        browser.close()


def test_pictures_show_methods_and_chance_but_no_control(layout: Layout) -> None:
    lines = [[line["name"] for line in chart.lines] for chart in judged.shared(facts.gathered(layout))]
    assert lines
    assert all(names == ["residual-kmeans", "chance"] for names in lines)


def test_without_the_stage_there_is_no_section(tmp_path: Path) -> None:
    made = toy.outputs(tmp_path)
    with running("report", "shop", toy.PARAMS, tmp_path) as run:
        report.main(run)
    page = (made.report / "index.html").read_text()
    assert 'id="semantic-ids"' not in page
    assert 'id="codes"' not in page


def test_the_markdown_has_the_figures(layout: Layout) -> None:
    assert "### What coding costs" in (layout.report / "report.md").read_text()


def test_items_are_found_by_words_and_by_prefix(tab: Any, layout: Layout) -> None:
    groups = facts.groups(layout, facts.gathered(layout), toy.ITEMS)
    assert groups
    codes = groups.codes["beit3 · residual-kmeans"]
    tab.fill("#code-query", "apple")
    assert tab.inner_text("#code-count") == "1 item found, of 1 first code"
    assert tab.locator("#code-groups .found").count() == 1
    assert tab.inner_text("#code-groups button") == str(codes[0][0])
    tab.click("#code-groups button")
    inside = [item for item in range(toy.ITEMS) if codes[item][0] == codes[0][0]]
    assert tab.input_value("#code-query") == str(codes[0][0])
    assert tab.locator("#code-groups .pic").count() == len(inside)
    assert tab.inner_text("#code-count").startswith(f"{len(inside)} item")
    prefix = "-".join(map(str, codes[0]))
    tab.fill("#code-query", prefix)
    assert tab.locator("#code-groups button").all_inner_texts() == [prefix]
    tab.fill("#code-query", "nothing such")
    assert tab.locator("#code-groups .pic").count() == 0


def test_other_codes_group_otherwise_and_a_hostile_title_stays_text(tab: Any, layout: Layout) -> None:
    groups = facts.groups(layout, facts.gathered(layout), toy.ITEMS)
    assert groups
    tab.select_option("#code-set", "beit3 · random")
    firsts = {codes[0] for codes in groups.codes["beit3 · random"]}
    assert tab.locator("#code-groups .group").count() == len(firsts)
    tab.fill("#code-query", "script")
    title = tab.locator("#code-groups .found").get_attribute("title")
    assert title.startswith(toy.TITLES[2])


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(tab: Any, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
