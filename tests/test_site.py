"""Scripts of .ci: the docs site has every page, key and command, and valid links; packages are pinned with hashes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from commands import script

from alignrec.commands.app import app
from alignrec.commands.params import SECTIONS
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime.code import ROOT
from alignrec.pipeline.sources.base import SOURCES

SITE = script("pages")


def pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(part)


def test_the_navigation_lists_every_page_once_and_nothing_else() -> None:
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages(nav)) == sorted({*written, *SITE.COPIED, *SITE.GENERATED})


def test_parameters_and_commands_are_all_listed() -> None:
    page = SITE.parameters()
    headings = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^### .*", page, re.MULTILINE))))
    assert {*SECTIONS, *(name for registry in (MODELS, ENCODERS, SOURCES) for name in registry.built_in)} <= headings
    names = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    page = SITE.commands()
    assert [name for name in names if f"## `alignrec {name}`" not in page] == []


LINKS = {
    "[a](encoders.md#kinds)": "[a](encoders.md#kinds)",
    "[a](../schemas)": "a",
    "[a](../pipeline/beit3/params.py)": "[a](reference/parameters.md)",
    "[a](../README.md#more)": "[a](index.md#more)",
    "[a](../profiles/baby.yaml)": "[a](files/profiles/baby.yaml.txt)",
    "[a](../tests/hostile), b": "a, b",
    "[a](https://arxiv.org/abs/2403.12384)": "[a](https://arxiv.org/abs/2403.12384)",
    "[a](absent.md)": "[a](absent.md)",
}
FETCHES = {
    '<script src="https://unpkg.com/x.js"></script>': True,
    "<img alt=x src=//cdn.example/x.png>": True,
    '<link rel="stylesheet" href="https://fonts.example/css">': True,
    '<link href="https://fonts.example" rel="preconnect">': True,
    "<style>@import 'https://x.example/a.css'</style>": True,
    "<style>a { background: url(https://x.example/a.png) }</style>": True,
    '<a href="https://arxiv.org">a</a> <link rel="canonical" href="https://x.example">': False,
    '<script src="assets/x.js"></script> <img src="neighbours.png">': False,
}


def test_links_lead_to_pages_of_the_site_and_fetches_are_noticed(tmp_path: Path) -> None:
    assert {link: SITE.with_links(link, "study.md") for link in LINKS} == LINKS
    assert SITE.with_links("[a](docs/study.md)", "index.md") == "[a](study.md)"
    for html, fetched in FETCHES.items():
        (tmp_path / "page.html").write_text(html)
        assert bool(list(SITE.fetching(tmp_path))) is fetched, html


def test_the_site_has_its_words_and_the_script_that_finds_them_from_the_disk(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra docs is not installed: make docs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "hnsw" in (tmp_path / "search/search_index.js").read_text()
    assert SITE.SCRIPT in (tmp_path / "index.html").read_text()


# --- installed packages are pinned with hashes


HASHES = script("hashes")
KNOWN = HASHES.listed((ROOT / "hashes.txt").read_text())
RELEASES = map(HASHES.RELEASE.match, (ROOT / "constraints.txt").read_text().splitlines())
PINNED = {(HASHES.normalised(match[1]), match[2]) for match in RELEASES if match}
NUMPY = next((name, version) for name, version in PINNED if name == "numpy")
GOOD = next(iter(KNOWN[NUMPY]))
INDEX = "https://index.example/numpy.whl"


def entry(name: str, version: str, url: str = INDEX, sha256: str | None = GOOD) -> dict:
    info = {"url": url} | ({"archive_info": {"hashes": {"sha256": sha256}}} if sha256 else {"dir_info": {}})
    return {"metadata": {"name": name, "version": version}, "download_info": info}


ENTRIES: dict[str, tuple[dict, int, str]] = {
    "as listed": (entry(*NUMPY), 0, ""),
    "another spelling": (entry("NumPy", NUMPY[1]), 0, ""),
    "another file": (entry(*NUMPY, sha256="0" * 64), 1, "numpy.whl has sha256 000"),
    "no hash": (entry(*NUMPY, sha256=None), 1, "has sha256 none"),
    "another release": (entry("numpy", "99.0"), 1, "no such release in hashes.txt"),
    "a stranger": (entry("nunpy", "1.0"), 1, "no such release in hashes.txt"),
    "CUDA's": (entry("nvidia-cublas-cu12", "99.0"), 0, "warning: nvidia-cublas-cu12 99.0"),
    "this disk's": (entry("torch", "2.13.0+cpu", "file:///opt/torch.whl", "0" * 64), 0, ""),
    "ourselves": (entry("alignrec", "0.1.0", "file:///here", None), 0, ""),
}


def test_what_came_from_an_index_has_a_listed_hash(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    for case, (installed, code, said) in ENTRIES.items():
        report.write_text(json.dumps({"install": [installed]}))
        command = [sys.executable, "-I", str(ROOT / ".ci/hashes.py"), str(report)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, bool(done.stderr)) == (code, bool(said)), case
        assert said in done.stderr, case


def test_every_release_is_pinned_with_hashes_but_cudas() -> None:
    oracle = HASHES.listed((ROOT / ".ci/torchscale.txt").read_text())
    assert {release for release in PINNED if not (KNOWN | oracle).get(release)} == set()
    names = {name for name, _ in PINNED}
    unpinned = {name for name, _ in KNOWN if name not in names and not name.startswith(HASHES.CUDA)}
    assert unpinned <= {"httpx2-jsfetch"}  # for browsers
    recipes = re.findall(r"^\.venv/\S+:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for recipe in recipes:
        assert re.search(r"\$\(INSTALL\).*\n\t\$\(HASHES\)", recipe)
        assert all("--require-hashes" in line for line in recipe.splitlines() if "pip install" in line)
    assert len(recipes) == 3
