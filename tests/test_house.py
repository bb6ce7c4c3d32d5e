"""The house: a package a stage, imports go one way, and the tests lie as the packages do."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from pipeline import code

ORDER = [
    *("config", "ops", "engine", "http", "sources", "interactions", "items", "images", "beit3", "encode", "features"),
    *("pretrain", "graph"),
    *("models", "evaluation", "train", "probe", "semantic_ids", "sequential", "benchmark", "study", "experiment"),
    *("facts", "release", "remote", "export", "report", "compare", "serve", "plan"),
]
FILES = sorted((code.ROOT / "pipeline").rglob("*.py"))


def package(module: str) -> str:
    """Return the package of a module of ours; empty for the harness."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 and parts[1] in ORDER else ""


def test_every_package_has_its_place_in_the_order() -> None:
    assert sorted(path.parent.name for path in (code.ROOT / "pipeline").glob("*/__init__.py")) == sorted(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(code.ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    here = package(".".join(path.relative_to(code.ROOT).with_suffix("").parts))
    for name in code.imports(path):
        assert not name.startswith("stages"), name
        there = package(name)
        if here and there:
            assert ORDER.index(there) <= ORDER.index(here), name
        elif there:  # the harness carries parameters, and knows nothing of those who read them
            assert there == "config", name


def test_no_module_is_imported_by_what_it_imports() -> None:
    files = [path for folder in code.TOP_LEVEL for path in (code.ROOT / folder).rglob("*.py")]
    graph = {path: {file for name in code.imports(path) if (file := code._file(name))} - {path} for path in files}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(files)  # CycleError names a circle


@pytest.mark.parametrize("folder", code.TOP_LEVEL)
def test_only_users_import_the_python_api(folder: str) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (code.ROOT / folder).rglob("*.py")}
    assert [
        path for path, text in texts.items() if re.search(r"^\s*(from|import) alignrec\b", text, re.MULTILINE)
    ] == []


def test_tests_lie_as_the_packages_do() -> None:
    folders = {path.name for path in (code.ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert folders - {"realdata", "api", "hostile"} <= set(ORDER)
