"""The house: a package a stage, imports go one way, and the tests lie as the packages do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from pipeline import code

ORDER = [
    *(
        "io",
        "config",
        "ops",
        "engine",
        "http",
        "sources",
        "interactions",
        "items",
        "vectors",
        "images",
        "beit3",
        "encode",
        "features",
    ),
    *("pretrain", "graph"),
    *("models", "evaluation", "train", "probe", "semantic_ids", "benchmark", "study", "experiment"),
    *("facts", "release", "remote", "export", "report", "compare", "embed", "serve", "plan"),
]


def package(module: str) -> str:
    """Return the package of a module of ours; empty for the harness."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 and parts[1] in ORDER else ""


def test_every_package_has_its_place_in_the_order() -> None:
    assert sorted(path.parent.name for path in (code.ROOT / "pipeline").glob("*/__init__.py")) == sorted(ORDER)


def test_imports_go_one_way() -> None:
    upward = []
    for path in sorted((code.ROOT / "pipeline").rglob("*.py")):
        here = package(".".join(path.relative_to(code.ROOT).with_suffix("").parts))
        for name in code.imports(path):
            there = package(name)
            above = here and there and ORDER.index(there) > ORDER.index(here)
            reader = there and not here and there not in ("io", "config")  # what else the harness knows
            if name.startswith("stages") or above or reader:
                upward.append(f"{path.relative_to(code.ROOT)} imports {name}")
    assert upward == []


def circle(graph: Mapping[Path, set[Path]]) -> list[Path]:
    """Return files of which each imports the next, and the last the first; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        found: list[Path] = e.args[1]
        return found
    return []


def test_no_module_is_imported_by_what_it_imports() -> None:
    a, b, c = map(Path, "abc")
    assert {*circle({a: {b}, b: {c}, c: {a}})} == {a, b, c}
    files = [path for folder in code.TOP_LEVEL for path in (code.ROOT / folder).rglob("*.py")]
    assert circle({path: {*filter(None, map(code.module_file, named(path)))} - {path} for path in files}) == []


def named(path: Path) -> list[str]:
    """Return the dotted names of the project that a file imports, those for types only included."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    found = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
    return [name for name in found if name.split(".")[0] in code.TOP_LEVEL]


def test_only_users_import_the_python_api() -> None:
    own = re.compile(r"^\s*(from|import) alignrec\b", re.MULTILINE)
    files = [path for folder in code.TOP_LEVEL for path in (code.ROOT / folder).rglob("*.py")]
    assert [path for path in files if own.search(path.read_text(encoding="utf-8"))] == []


def test_tests_lie_as_the_packages_do() -> None:
    folders = {path.name for path in (code.ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert folders - {"realdata", "api", "hostile"} <= set(ORDER)


OFFERED = {"_asdict", "_fields", "_make", "_replace", "_exit"}
"""what NamedTuple and os offer to all under such a name"""


def is_private(name: str) -> bool:
    """Return whether a part of a dotted name begins with one underscore."""
    return any(part[:1] == "_" and part[:2] != "__" and part not in OFFERED for part in name.split("."))


def names_of_others(text: str) -> Iterator[str]:
    """Yield each name that code takes from other code: an attribute, an import, or a name that is set by its text.

    Code in a string, which a process of its own runs, is read too.
    """
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(value=ast.Name("self" | "cls")):
                continue
            case ast.Attribute(attr=name):
                yield name
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr") | ast.Name("getattr"), args=args):
                yield from (a.value for a in args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str))
            case ast.Constant(value=str(within)) if "import " in within:
                with suppress(SyntaxError):  # of words that are no code
                    yield from names_of_others(within)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *(
            (line, True)
            for line in ("a.{}", "import a.{}", "from a import {}", "from a.{} import c", "getattr(a, '{}')")
        ),
        *((line, True) for line in ("patch.setattr(a, '{}', 1)", "patch.setattr('a.{}', 1)", "run('import a; a.{}')")),
        *((line, False) for line in ("self.{}", "a.b", "a.__b__", "a._replace(b=1)", "from __future__ import b")),
    ],
)
def test_a_private_name_is_seen(line: str, expected: bool) -> None:
    assert any(map(is_private, names_of_others(line.format("_b")))) == expected


def test_no_test_reads_a_private_name() -> None:
    found = [
        f"{path.relative_to(code.ROOT)}: {name}"
        for path in sorted((code.ROOT / "tests").rglob("*.py"))
        for name in names_of_others(path.read_text(encoding="utf-8"))
        if is_private(name) and not name.startswith("benchmarks.")  # whose tests these are too
    ]
    assert found == []
