"""Fingerprints of the code that results depend on."""

import ast
import hashlib
from functools import cache
from pathlib import Path

from alignrec.pipeline import io

ROOT = Path(__file__).resolve().parents[2]  # the repository, or alignrec/ of an installed package
TOP_LEVEL = ("pipeline", "stages", "schemas")
PREFIX = "alignrec."
PIPELINE = ROOT / "pipeline"
# files of the harness that do affect results
SHAPING = ("runtime/process.py", "runtime/seeds.py", "models/params.py")
# files that do not affect results: downloads are verified by hash, and parameter values are part of
# a stage's key
HARNESS = {
    PIPELINE / "io/errors.py",
    *(PIPELINE / "runtime").glob("*.py"),
    *(PIPELINE / "web").glob("*.py"),
    *PIPELINE.rglob("params.py"),
} - {PIPELINE / name for name in SHAPING}


@cache
def source_sha256() -> str:
    """Return one hash of all source files."""
    folders = [ROOT / name for name in TOP_LEVEL]
    return io.digest(path for folder in folders for path in sorted(folder.rglob("*.py")))


@cache
def fingerprint(*modules: str) -> str:
    total = hashlib.sha256()
    for path in import_closure(*modules):
        total.update(f"\n{path.relative_to(ROOT)}\n".encode() + _content_that_counts(path))
    return total.hexdigest()


def import_closure(*modules: str) -> tuple[Path, ...]:
    """Return the files that modules depend on: what they import, and data files that these name."""
    closure = set(HARNESS)
    todo = [module_file(module) for module in modules]
    while todo:
        path = todo.pop()
        if path is None or path in closure:
            continue
        closure.add(path)
        todo += _named_data_files(path)
        if path.suffix == ".py":
            names = imported_modules(path)
            todo += [module_file(name) for name in names if not name.startswith("alignrec.stages")]
    return tuple(sorted(closure - HARNESS))


@cache
def imported_modules(path: Path) -> tuple[str, ...]:
    """Return the modules of ours that a file imports, without imports for type checkers."""
    names = []
    for node in ast.walk(_syntax_tree(path)):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return tuple(filter(is_ours, names))


def is_ours(module: str) -> bool:
    return module.startswith(PREFIX) and module.split(".")[1] in TOP_LEVEL


def module_file(name: str) -> Path | None:
    """Return the file of the longest prefix that is a module."""
    path = ROOT.joinpath(*name.removeprefix(PREFIX).split("."))
    for candidate in (path, path.parent):
        for file in (candidate.with_suffix(".py"), candidate / "__init__.py"):
            if file.is_file():
                return file
    return None


def _named_data_files(path: Path) -> list[Path]:
    text = path.read_text(encoding="utf-8", errors="ignore")
    others = [file for file in path.parent.iterdir() if file.suffix not in ("", ".py")]
    return [file for file in others if file.name in text]


def _content_that_counts(path: Path) -> bytes:
    if path.suffix != ".py":
        return path.read_bytes()
    return _canonical_text(_syntax_tree(path)).encode()


@cache
def _syntax_tree(path: Path) -> ast.Module:
    """Return the code of a file without docstrings and what only type checkers read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [part for part in body if _is_executed(part)]  # type: ignore[attr-defined]
    return tree


def _is_executed(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return False
    return True


def _canonical_text(part: object) -> str:
    # unlike `ast.dump`, this gives the same text in all versions of Python
    if isinstance(part, list):
        return f"[{','.join(map(_canonical_text, part))}]"
    if not isinstance(part, ast.AST):
        return repr(part)

    fields = []
    for name, value in ast.iter_fields(part):
        if value not in (None, []):
            fields.append(f"{name}={_canonical_text(value)}")
    return f"{type(part).__name__}({','.join(fields)})"
