"""Layout of the code: a package per stage, imports in one direction, and tests that mirror the packages."""

import ast
import re
from graphlib import TopologicalSorter

from alignrec.pipeline.runtime import code

ORDER = [
    *("io", "runtime", "linalg", "web", "vectors", "sources", "dataset", "images"),
    *("encoders", "features", "beit3", "models", "evaluation", "report", "release"),
]
FILES = {
    path: path.read_text(encoding="utf-8")
    for folder in code.TOP_LEVEL for path in sorted((code.ROOT / folder).rglob("*.py"))
}  # fmt: skip


def package(module: str) -> str:
    first, _, rest = module.removeprefix("alignrec.").partition(".")
    name = rest.partition(".")[0]
    return name if first == "pipeline" and name in ORDER else ""


def test_packages_are_those_of_the_order_and_tests_lie_as_they_do() -> None:
    assert sorted(path.parent.name for path in (code.ROOT / "pipeline").glob("*/__init__.py")) == sorted(ORDER)
    folders = {path.name for path in (code.ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert folders - {"realdata", "api", "hostile"} <= set(ORDER)


def test_imports_go_one_way() -> None:
    upward = []
    for path in sorted((code.ROOT / "pipeline").rglob("*.py")):
        here = package(".".join(path.relative_to(code.ROOT).with_suffix("").parts))
        for name in code.imported_modules(path):
            there = package(name)
            above = here and there and ORDER.index(there) > ORDER.index(here)
            if name.startswith("alignrec.stages") or above:
                upward.append(f"{path.relative_to(code.ROOT)} imports {name}")
    assert upward == []


def test_no_module_is_imported_by_what_it_imports() -> None:
    graph = {}
    for path, text in FILES.items():
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]  # also those for types
        names = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
        graph[path] = {*filter(None, map(code.module_file, filter(code.is_ours, names)))} - {path}
    TopologicalSorter(graph).prepare()  # raises for a circle
    own = re.compile(r"^\s*(from|import) alignrec(\.(?!pipeline|stages|schemas)| import (?!schemas))", re.MULTILINE)
    assert [path for path, text in FILES.items() if own.search(text)] == []  # the Python API is for users only
