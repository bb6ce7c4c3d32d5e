"""Pages that are opened from the disk, in a real browser: the search of the docs site, and DVC's plots."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import script

from pipeline.code import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
SHIM = ROOT / ".ci" / script("pages").SCRIPT
WORKER = """
let prefix = "";
importScripts("words.js").then(() => { prefix = word; });
addEventListener("message", (event) => setTimeout(() => postMessage(prefix + event.data.toUpperCase()), 300));
"""
PAGE = """<body><p id="said"></p><script src="iframe-worker.js"></script><script>
const worker = new Worker("worker.js");
worker.addEventListener("message", (event) => { said.textContent = event.data; });
worker.postMessage("before it is loaded");
</script></body>"""


@pytest.fixture
def tab() -> Iterator["sync_api.Page"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_a_worker_of_a_page_from_the_disk_answers(tab: "sync_api.Page", tmp_path: Path) -> None:
    shutil.copy(SHIM, tmp_path)
    texts = {"page.html": PAGE, "worker.js": WORKER, "words.js": 'var word = "heard: ";'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_function("said.textContent === 'heard: BEFORE IT IS LOADED'")


def test_the_site_finds_words_from_the_disk_and_asks_no_network(tab: "sync_api.Page", tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra docs is not installed: make docs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    for page in ("index.html", "reference/columns.html"):
        tab.goto((tmp_path / page).as_uri())
        tab.click("input[name=query]")
        tab.keyboard.type("hnsw")
        tab.wait_for_selector(".md-search-result__item a[href*='.html']")
    assert [url for url in requests if not url.startswith("file:")] == []


def test_dvcs_plots_need_no_network(tab: "sync_api.Page", tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dvc", "plots", "show", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    asked, faults = list[str](), list[str]()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    page = (tmp_path / "index.html").as_uri()
    tab.goto(page)
    drawn = re.findall(r"var spec = \{\".+\n\s+vegaEmbed\('(#[^']+)'", (tmp_path / "index.html").read_text())
    assert len(drawn) >= 5
    for name in drawn:
        tab.wait_for_selector(f"{name} canvas")
    assert (asked, faults) == ([page], [])
