"""Fingerprints of what results depend on: code, library versions, the machine."""

import ast
import hashlib
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # the repository, or alignrec/ of an installed package
TOP_LEVEL = ("pipeline", "stages", "schemas")
PREFIX = "alignrec."
STAGES_PACKAGE = f"{PREFIX}stages"
PIPELINE = ROOT / "pipeline"
# files of the harness that do affect results
SHAPING = ("runtime/process.py", "runtime/seeds.py", "models/params.py")
# files that do not affect results: downloads are verified by hash, and parameter values are part of
# a stage's key
HARNESS = {
    PIPELINE / "__init__.py",
    PIPELINE / "io" / "errors.py",
    *(PIPELINE / "runtime").glob("*.py"),
    *(PIPELINE / "web").glob("*.py"),
    *PIPELINE.rglob("params.py"),
} - {PIPELINE / name for name in SHAPING}
# suffixes of data files, which are hashed if a source file mentions their name
DATA_SUFFIXES = frozenset({".html", ".css", ".js", ".md", ".json"})
LIBRARIES = (
    *("torch", "faiss-cpu", "faiss-gpu", "duckdb", "pyarrow", "numpy", "scipy", "pillow"),
    *("simplejpeg", "tokenizers", "transformers", "sentencepiece", "open_clip_torch"),
)


def import_closure(*modules: str) -> tuple[Path, ...]:
    """Return the files that modules depend on: what they import, and data files that these name."""
    closure: set[Path] = set()
    todo = [module_file(module) for module in modules]
    while todo:
        path = todo.pop()
        if path is None or path in closure or path in HARNESS:
            continue
        closure.add(path)
        if path.suffix == ".py":
            names = imported_modules(path)
            todo += [module_file(name) for name in names if not name.startswith(STAGES_PACKAGE)]
        todo += _named_data_files(path)
    return tuple(sorted(closure))


def _named_data_files(path: Path) -> list[Path]:
    text = path.read_text(encoding="utf-8")
    files = [*path.parent.glob("*"), *(ROOT / "schemas").glob("*")]
    return [file for file in files if file.suffix in DATA_SUFFIXES and file.name in text]


@cache
def fingerprint(*modules: str) -> str:
    total = hashlib.sha256()
    for path in import_closure(*modules):
        total.update(f"{path.relative_to(ROOT)}\n".encode())
        total.update(_content_that_counts(path) + b"\n")
    return total.hexdigest()


@cache
def source_sha256() -> str:
    """Return one hash of all files of the code."""
    paths: list[Path] = []
    for folder in TOP_LEVEL:
        files = (ROOT / folder).rglob("*")
        paths += [path for path in files if path.suffix in DATA_SUFFIXES | {".py"}]

    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


@cache
def _content_that_counts(path: Path) -> bytes:
    if path.suffix != ".py":
        return path.read_bytes()
    return _canonical_text(_syntax_tree(path)).encode()


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


@cache
def imported_modules(path: Path) -> tuple[str, ...]:
    """Return the modules of ours that a file imports, without imports for type checkers."""
    executed = [s for s in _syntax_tree(path).body if not _is_for_type_checkers(s)]
    names: list[str] = []
    packages: dict[str, str] = {}  # local name -> package that only re-exports names
    for statement in executed:
        for node in _walk_statements(statement):
            imported = _imported_names(node)
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            else:
                names += imported.values()
            packages |= {name: full for name, full in imported.items() if _reexported_names(full)}

    # for packages that only re-export names, count the modules of the names used
    for statement in executed if packages else ():
        names += _used_attributes(statement, packages)
    return tuple(filter(is_ours, names))


def _is_for_type_checkers(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def _imported_names(node: ast.AST) -> dict[str, str]:
    """Return local name -> full dotted name of an absolute import; empty for other statements."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name: alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {}


def _used_attributes(statement: ast.stmt, packages: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = packages.get(node.value.id)
            if package:
                yield f"{package}.{node.attr}"


def is_ours(module: str) -> bool:
    return module.startswith(PREFIX) and module.removeprefix(PREFIX).split(".")[0] in TOP_LEVEL


def _module_path(module: str) -> Path:
    return ROOT.joinpath(*module.removeprefix(PREFIX).split("."))


@cache
def _syntax_tree(path: Path) -> ast.Module:
    """Return the code of a file without docstrings and, of a stage, without its declaration."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.parent == ROOT / "stages":
        _drop_declaration(tree)
    for node in _walk_statements(tree):
        if body := getattr(node, "body", None):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return tree


def _drop_declaration(tree: ast.Module) -> None:
    """Drop declarations of stages, which do not affect results, and imports that only they need."""
    tree.body = [statement for statement in tree.body if not _declares_stage(statement)]
    used_names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom):
            statement.names = [
                alias for alias in statement.names if (alias.asname or alias.name) in used_names
            ]


def _declares_stage(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.value).startswith("Stage(")


def _is_text(statement: ast.AST) -> bool:
    if not isinstance(statement, ast.Expr):
        return False
    return isinstance(getattr(statement.value, "value", None), str)


def _walk_statements(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, part, ()):
            yield from _walk_statements(child)


@cache
def _reexported_names(module: str) -> dict[str, str]:
    """Return name -> full dotted name of a package whose __init__ only re-exports.

    Empty for others.
    """
    path = _module_path(module) / "__init__.py"
    if not path.is_file():
        return {}
    exports: dict[str, str] = {}
    for statement in _syntax_tree(path).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            exports |= _imported_names(statement)
        elif not ast.unparse(statement).startswith("__all__ = "):
            return {}
    return {name: full for name, full in exports.items() if is_ours(full)}


def module_file(name: str) -> Path | None:
    """Return the file of the longest prefix that is a module.

    None for a package that only re-exports.
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if exports := _reexported_names(module):
            export = exports.get(parts[end]) if end < len(parts) else None
            return module_file(export) if export else None

        path = _module_path(module)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | installed_versions(("alignrec", *LIBRARIES))


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    installed = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def processor_name() -> str:
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
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
