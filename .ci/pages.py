"""MkDocs hook of `make docs`: add top-level and reference pages, rewrite links, convert equations to MathML."""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import alignrec
from alignrec.commands.params import SECTIONS
from alignrec.pipeline.encoders.registry import ENCODERS
from alignrec.pipeline.features.kinds import KINDS
from alignrec.pipeline.models import MODELS
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.sources.base import SOURCES

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "index": "README",
    "contributing": "CONTRIBUTING",
    "changelog": "CHANGELOG",
    "security": "SECURITY",
}
COPIED = {
    f"{page}.md": f"{name}.md" for page, name in NAMES.items()
}  # page of the site -> file of the repository
SCRIPT = "iframe-worker.js"  # makes the search work on pages that are opened from disk
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/])([^)#\s]+)")
BADGE = re.compile(r"^\[?!\[[^\]]*\]\(https?:.*\n", re.MULTILINE)
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# options of mkdocstrings for classes of parameters
KEYS = """    options:
      heading_level: 4
      inherited_members: true
      show_bases: false
      show_root_heading: false
      show_root_toc_entry: false
"""
# resources that browsers fetch without a click
FETCHED = re.compile(
    r"<(?:script|img|source|iframe)\b[^>]*?\bsrc=[\"']?(?:https?:)?//[^\s>]*"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*\bhref=[\"']?(?:https?:)?//[^\s>]*"
    r"|(?:url\(|@import )[\"']?(?:https?:)?//[^\s>)]*",
    re.IGNORECASE,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/ and copies of files that pages link to."""
    from mkdocs.structure.files import File

    for page, origin in COPIED.items():
        files.append(File.generated(config, page, content=_text(ROOT / origin)))
    for page, generate in GENERATED.items():
        files.append(File.generated(config, page, content=generate()))
    files.append(
        File.generated(
            config, f"assets/{SCRIPT}", abs_src_path=str(Path(__file__).with_name(SCRIPT))
        )
    )
    for path in sorted(
        {path for file in files.documentation_pages() for path in _linked(_origin(file.src_uri))}
    ):
        if (ROOT / path).exists() and page_of(path) == (copy := _copy(path)):
            files.append(File.generated(config, copy, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to files of the repository."""
    return with_links(markdown, page.file.src_uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert equations to MathML, which needs no script."""
    from latex2mathml.converter import convert

    def drawn(match: re.Match[str]) -> str:
        if match[1] == "span":
            return convert(unescape(match[2]).strip())
        return f'<div style="overflow-x: auto">{convert(unescape(match[2]).strip(), display="block")}</div>'

    return EQUATION.sub(drawn, html)


def on_post_build(config: MkDocsConfig) -> None:
    """Fail if the site loads resources from other hosts."""
    from mkdocs.exceptions import PluginError

    if fetched := sorted(fetching(Path(config.site_dir))):
        raise PluginError(f"built pages need a network: {'; '.join(fetched[:5])}")


def fetching(site: Path) -> Iterator[str]:
    """Yield file and address of each external resource."""
    for path in site.rglob("*"):
        if path.suffix in (".html", ".css"):
            for found in FETCHED.findall(path.read_text(encoding="utf-8")):
                yield f"{path.relative_to(site)}: {found}"


def page_of(path: str) -> str | None:
    """Return the page of a file of the repository; None for folders, which have none."""
    if (ROOT / path).is_dir():
        return None
    if path.endswith("params.py"):
        return "reference/parameters.md"
    own = {origin: page for page, origin in COPIED.items()}
    return own.get(path) or (
        path.removeprefix("docs/") if path.startswith("docs/") else _copy(path)
    )


def with_links(markdown: str, page: str) -> str:
    """Replace links to files of the repository by links to pages, and links to folders by their text."""
    if (origin := _origin(page)) is None:
        return markdown
    start = posixpath.dirname(page)

    def followed(match: re.Match[str]) -> str:
        path = _resolved(origin, match[1])
        if not (ROOT / path).exists():
            return match[0]  # an error in the strict build
        target = page_of(path)
        return posixpath.relpath(target, start or ".") if target else "NOWHERE"

    return re.sub(r"\[([^\]]*)\]\(NOWHERE[^)]*\)", r"\1", LINK.sub(followed, markdown))


def _origin(page: str) -> str | None:
    """Return the source file of a page; None if it is generated."""
    return None if page in GENERATED else COPIED.get(page, f"docs/{page}")


def _linked(origin: str | None) -> Iterator[str]:
    if origin is not None:
        yield from (_resolved(origin, link) for link in LINK.findall(_text(ROOT / origin)))


def _resolved(origin: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def _copy(path: str) -> str:
    # browsers display .txt
    return f"files/{path}.txt"


def _text(path: Path) -> str:
    return BADGE.sub("", path.read_text(encoding="utf-8"))


def python() -> str:
    """Return the reference of the Python API, filled in by mkdocstrings."""
    head = "# Python API\n\nGenerated from the code. [In Python](../python.md) has an example of each.\n\n"
    public = (getattr(alignrec, name) for name in sorted(alignrec.__all__, key=str.lower))
    return head + "".join(f"::: {part.__module__}.{part.__name__}\n\n" for part in public)


def commands() -> str:
    """Return the reference of commands, generated by typer."""
    command = [
        sys.executable,
        "-m",
        "typer",
        "alignrec.commands.app",
        "utils",
        "docs",
        "--name",
        "alignrec",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    return done.stdout.replace("# `alignrec`", "# Commands", 1)


def parameters() -> str:
    """Return the reference of parameters."""
    lines = [
        "# Parameters\n",
        "Every key of `params.yaml`, generated from the code. An unknown key is refused.\n",
    ]
    families: dict[str, Mapping[str, type]] = {
        "Sections": {"the whole file": Parameters} | SECTIONS,
        "Recommenders": {name: MODELS[name].Params for name in MODELS.built_in},
        "Encoders": {name: ENCODERS[name].params for name in ENCODERS.built_in},
        "Combinations": {name: kind.params for name, kind in KINDS.items()},
        "Sources": {name: SOURCES[name] for name in SOURCES.built_in},
    }
    for heading, kinds in families.items():
        names: dict[type, list[str]] = {}
        for name, kind in kinds.items():
            names.setdefault(kind, []).append(f"`{name}`")
        lines.append(f"## {heading}\n")
        for kind, shared in names.items():
            lines.append(
                f"### {', '.join(shared)}\n\n::: {kind.__module__}.{kind.__qualname__}\n{KEYS}"
            )
    return "\n".join(lines)


GENERATED = {f"reference/{f.__name__}.md": f for f in (python, commands, parameters)}
