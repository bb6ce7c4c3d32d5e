"""The docs site has every page, says what the code says, follows links, and asks nothing of a network."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import shipped
import typer
import yaml
from scripts import script

import schemas
from pipeline.code import ROOT
from pipeline.encode.registry import ENCODERS
from pipeline.models import MODELS
from pipeline.semantic_ids.registry import METHODS
from pipeline.sources.registry import SOURCES
from stages.cli import app

SITE = script("pages")
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


@pytest.fixture(scope="module")
def parameters() -> str:
    return SITE.generated.parameters()


def pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(part)


def rows(text: str, heading: str) -> dict[str, str]:
    """Return first cell -> whole row, of the table under a heading."""
    section = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}


def test_the_navigation_lists_every_page_once_and_nothing_else() -> None:
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(pages(SETTINGS["nav"])) == sorted({*written, *SITE.COPIED, *SITE.generated.PAGES})


def test_every_key_of_the_parameter_file_is_there(parameters: str) -> None:
    for section, keys in yaml.safe_load((shipped.root() / "params.yaml").read_text()).items():
        if section not in ("datasets", "sources", "encoders", "train"):
            assert keys.keys() <= rows(parameters, f"`{section}`").keys(), section


def test_a_key_has_its_type_default_and_meaning(parameters: str) -> None:
    row = rows(parameters, "`alignrec`")["cca"]
    assert row == "| `cca` | number, ≥ 0 | `0.01` | weight of content-ID alignment |"
    row = rows(parameters, "`pretrain`")["words"]
    assert row.startswith('| `words` | `random`, `minilm` | `"minilm"` | what piece embeddings start from')
    assert "And the keys of Regularised." in parameters.split("### `bpr`")[1].split("###")[0]


@pytest.mark.parametrize("registry", [MODELS, ENCODERS, METHODS, SOURCES])
def test_every_part_has_its_heading(registry: Any, parameters: str) -> None:
    headings = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^### .*", parameters, re.MULTILINE))))
    assert registry.built_in.keys() <= headings


def test_every_column_of_every_table_is_there() -> None:
    page = SITE.generated.columns()
    tables = vars(schemas)
    constants = {name: table for name, table in tables.items() if isinstance(table, pa.Schema)}
    assert len(constants) > 10
    assert {name: [*rows(page, name)] for name in constants} == {name: s.names for name, s in constants.items()}
    assert rows(page, "features(width)")["vector"].startswith("| `vector` | float32[width] | ")
    assert "`outputs/graph/<dataset>/<name>/edges.parquet`" in page


def test_every_command_is_there() -> None:
    page = SITE.generated.commands()
    names = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in names if f"](#alignrec-{name})" not in page or f"## `alignrec {name}`" not in page] == []


LINKS = {
    "[a](encoders.md#kinds)": "[a](encoders.md#kinds)",
    "[a](tour.ipynb)": "[a](tour.md)",
    "[a](../schemas)": "[a](reference/columns.md)",
    "[a](../pipeline/pretrain/params.py)": "[a](reference/parameters.md)",
    "[a](../README.md#more)": "[a](index.md#more)",
    "[a](../profiles/baby.yaml)": "[a](files/profiles/baby.yaml.txt)",
    "[a](../tests/hostile), b": "a, b",
    "[a](https://arxiv.org/abs/2403.12384)": "[a](https://arxiv.org/abs/2403.12384)",
    "[a](absent.md)": "[a](absent.md)",
}


@pytest.mark.parametrize("link", LINKS)
def test_links_of_the_repository_lead_to_pages_of_the_site(link: str) -> None:
    assert SITE.with_links(link, "study.md") == LINKS[link]


def test_links_of_pages_from_the_top_level_are_followed_from_there() -> None:
    assert SITE.with_links("[a](docs/study.md)", "index.md") == "[a](study.md)"


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


@pytest.mark.parametrize("html", FETCHES)
def test_what_a_page_would_fetch_is_noticed(html: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(html)
    assert bool(list(SITE.fetching(tmp_path))) is FETCHES[html]
