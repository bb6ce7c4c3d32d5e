"""Which source files a module really uses, so that an edit re-runs exactly what it affects."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from pipeline.io import digest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("pipeline", "stages", "schemas")
HARNESS = {
    *(ROOT / "pipeline" / f"{n}.py" for n in ("__init__", "code", "errors", "layout", "params", "registry", "run")),
    *(ROOT / "pipeline" / "config").glob("*.py"),
    ROOT / "stages" / "__init__.py",
}
"""Files that carry a stage but do not shape its results."""


def closure(module: str) -> tuple[Path, ...]:
    """Return the source files of ours that `module` imports through any number of steps, itself included, sorted.

    Imports inside functions count; the harness neither counts nor is followed.
    """
    seen: set[Path] = set()
    todo = [_file(module)]
    while todo:
        path = todo.pop()
        if path is None or path in seen or path in HARNESS:
            continue
        seen.add(path)
        todo += [_file(name) for name in _imports(path)]
    return tuple(sorted(seen))


def dependencies(module: str) -> list[str]:
    """Return the closure as dvc.yaml lists it: relative paths, a folder for a package of which every module is used."""
    used = set(closure(module))
    folders = {path.parent for path in used if path.parent.parent != ROOT}
    whole = {folder for folder in folders if set(folder.glob("*.py")) <= used}
    named = whole | {path for path in used if path.parent not in whole}
    return sorted(str(path.relative_to(ROOT)) for path in named)


@cache
def fingerprint(module: str) -> str:
    """Return the sha256 of the module's closure."""
    return digest(closure(module))


@cache
def _imports(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            parts = [f"{node.module}.{a.name}" for a in node.names]
            names += [part if _file(part) else node.module for part in parts]  # of a package only what is named
    return tuple(n for n in names if n.split(".")[0] in OURS)


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
