"""Fingerprints of what results depend on: code without docstrings and comments, library versions, the machine."""

import ast
import hashlib
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # the repository, or alignrec/ of an installed package
TOP_LEVEL = ("pipeline", "stages", "schemas")
PREFIX = "alignrec."
PIPELINE = ROOT / "pipeline"
SHAPING = ("runtime/process", "runtime/seeds", "models/params")
# files that do not affect results: downloads are verified by hash, and parameter values are part of a stage's key
HARNESS = {
    PIPELINE / "__init__.py",
    PIPELINE / "io" / "errors.py",
    *(
        path
        for package in ("runtime", "web", "checks")
        for path in (PIPELINE / package).glob("*.py")
    ),
    *PIPELINE.rglob("params.py"),
} - {PIPELINE / f"{name}.py" for name in SHAPING}
# suffixes of data files, which are hashed if a source file mentions their name
DATA = frozenset({".html", ".css", ".js", ".md", ".json"})


def import_closure(*modules: str) -> tuple[Path, ...]:
    seen: set[Path] = set()
    todo = [module_file(module) for module in modules]
    while todo:
        path = todo.pop()
        if path is None or path in seen or path in HARNESS:
            continue
        seen.add(path)
        named = imported_modules(path) if path.suffix == ".py" else ()
        todo += [module_file(name) for name in named if not name.startswith(f"{PREFIX}stages")]
        text = path.read_text(encoding="utf-8")
        data = (
            f
            for folder in (path.parent, ROOT / "schemas")
            for f in folder.glob("*")
            if f.suffix in DATA
        )
        todo += [file for file in data if file.name in text]
    return tuple(sorted(seen))


@cache
def fingerprint(*modules: str) -> str:
    total = hashlib.sha256()
    for path in import_closure(*modules):
        total.update(f"{path.relative_to(ROOT)}\n".encode() + _content_that_counts(path) + b"\n")
    return total.hexdigest()


@cache
def _content_that_counts(path: Path) -> bytes:
    return (
        _canonical_text(_syntax_tree(path)).encode() if path.suffix == ".py" else path.read_bytes()
    )


def _canonical_text(part: object) -> str:
    # unlike `ast.dump`, this gives the same text in all versions of Python
    if isinstance(part, list):
        return f"[{','.join(map(_canonical_text, part))}]"
    if not isinstance(part, ast.AST):
        return repr(part)
    given = (
        f"{name}={_canonical_text(value)}"
        for name, value in ast.iter_fields(part)
        if value not in (None, [])
    )
    return f"{type(part).__name__}({','.join(given)})"


@cache
def source_sha256() -> str:
    total = hashlib.sha256()
    for path in sorted(
        p for top in TOP_LEVEL for p in (ROOT / top).rglob("*") if p.suffix in DATA | {".py"}
    ):
        total.update(
            f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode() + path.read_bytes()
        )
    return total.hexdigest()


@cache
def imported_modules(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    packages: dict[str, str] = {}  # local name -> package that only re-exports names
    # skip imports for type checkers
    executed = [
        s
        for s in _syntax_tree(path).body
        if not (isinstance(s, ast.If) and ast.unparse(s.test) == "TYPE_CHECKING")
    ]
    for node in (node for statement in executed for node in _walk_statements(statement)):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
            packages |= {
                a.asname or a.name: a.name for a in node.names if _reexported_names(a.name)
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            own = {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            names += own.values()
            packages |= {name: module for name, module in own.items() if _reexported_names(module)}
    # for packages that only re-export names, count the modules of the names used
    for node in (
        node for statement in executed for node in (ast.walk(statement) if packages else ())
    ):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in packages
        ):
            names.append(f"{packages[node.value.id]}.{node.attr}")
    return tuple(filter(is_ours, names))


def is_ours(module: str) -> bool:
    return module.startswith(PREFIX) and module.removeprefix(PREFIX).split(".")[0] in TOP_LEVEL


def _module_path(module: str) -> Path:
    return ROOT.joinpath(*module.removeprefix(PREFIX).split("."))


@cache
def _syntax_tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.parent == ROOT / "stages":
        # declarations of stages do not affect results: drop them and the imports that only they need
        is_stage = [
            isinstance(s, ast.Assign) and ast.unparse(s.value).startswith("Stage(")
            for s in tree.body
        ]
        tree.body = [
            statement
            for statement, declared in zip(tree.body, is_stage, strict=True)
            if not declared
        ]
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom):
                statement.names = [
                    alias for alias in statement.names if (alias.asname or alias.name) in used
                ]
    for node in _walk_statements(tree):
        if body := getattr(node, "body", None):
            texts = [
                s
                for s in body
                if isinstance(s, ast.Expr) and isinstance(getattr(s.value, "value", None), str)
            ]
            node.body = [s for s in body if s not in texts]  # type: ignore[attr-defined]
    return tree


def _walk_statements(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, part, ()):
            yield from _walk_statements(child)


@cache
def _reexported_names(module: str) -> dict[str, str]:
    """Return name -> full dotted name of a package whose __init__ only re-exports; empty for others."""
    path = _module_path(module) / "__init__.py"
    if not path.is_file():
        return {}
    exports: dict[str, str] = {}
    for statement in _syntax_tree(path).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            exports |= {a.asname or a.name: f"{statement.module}.{a.name}" for a in statement.names}
        elif not ast.unparse(statement).startswith("__all__ = "):
            return {}
    return {name: full for name, full in exports.items() if is_ours(full)}


def module_file(name: str) -> Path | None:
    """Return the file of the longest prefix that is a module; None for a package that only re-exports."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        path = _module_path(module)
        if exports := _reexported_names(module):
            return (
                module_file(exports[parts[end]])
                if end < len(parts) and parts[end] in exports
                else None
            )
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


LIBRARIES = ("torch", "faiss-cpu", "faiss-gpu-cu12", "duckdb", "pyarrow", "numpy", "scipy", "pillow", "simplejpeg",
             "tokenizers", "transformers", "sentencepiece", "open_clip_torch")  # fmt: skip


@cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | installed_versions(("alignrec", *LIBRARIES))


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def processor_name() -> str:
    if (info := Path("/proc/cpuinfo")).exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def describe_machine(device: str) -> str:
    description = f"{platform.system()}, {processor_name()}, {os.cpu_count()} cores"
    if device.startswith("cuda"):
        import torch  # already loaded if a GPU was used

        description += f", {torch.cuda.get_device_name(device)}"
    return description


def machine_facts() -> dict[str, Any]:
    import torch  # takes seconds to load

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": processor_name(), "cores": os.cpu_count(), "gpu": gpu, "versions": versions()}
