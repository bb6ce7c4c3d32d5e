"""Pages of the docs site that come from the code: the Python API, commands, parameters, columns.

`PAGES` has each page's address and the function that returns its Markdown. The meaning of a key or column stands where
it is declared, and nowhere else.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import typer

import alignrec
import schemas
from pipeline.config.base import Section
from pipeline.config.parameters import Parameters
from pipeline.encode.registry import ENCODERS
from pipeline.features.registry import FEATURES
from pipeline.layout import Layout
from pipeline.models import MODELS, RELEASED
from pipeline.semantic_ids.registry import METHODS
from pipeline.sources.registry import SOURCES
from stages.cli import app
from stages.params import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
WORDS = {"float": "float32", "double": "float64", "halffloat": "float16"}
"""Arrow's names of types -> NumPy's"""
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
LIMITS = {"exclusiveMinimum": "> ", "minimum": "≥ ", "maximum": "≤ ", "multipleOf": "a multiple of "}
LONGEST = 120
"""characters of a default"""
FREE = 7919
"""this and the numbers after it stand for widths that are free, and no schema has them"""


def python() -> str:
    """Return the page of the Python API, which mkdocstrings fills in from docstrings."""
    head = "# Python API\n\nGenerated from the code. [In Python](../python.md) has an example of each.\n\n"
    public = (getattr(alignrec, name) for name in sorted(alignrec.__all__, key=str.lower))
    return head + "".join(f"::: {part.__module__}.{part.__name__}\n\n" for part in public)


def commands() -> str:
    """Return the page of commands: those of each heading of `alignrec --help`, then what typer writes of each."""
    command = [sys.executable, "-m", "typer", "stages.cli", "utils", "docs", "--name", "alignrec"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    before, _, after = done.stdout.partition("**Commands**:")
    details = after[after.index("\n## ") :]
    return before.replace("# `alignrec`", "# Commands", 1) + "".join(_listed()) + details


def parameters() -> str:
    """Return the page of parameters: sections of params.yaml, then what each recommender, encoder and source reads."""
    lines = [
        "# Parameters\n",
        "Every key of `params.yaml`, generated from the code. A key that is not here is refused.\n",
    ]
    lines += ["## The whole file\n", *_keys(Parameters, Parameters.model_fields.keys())]
    lines += ["## Sections\n"]
    for name, kind in SECTIONS.items():
        lines += _section(kind, f"`{name}`")
    lines += ["## Recommenders\n", f"Section `train` has the keys of {RELEASED}, `benchmark.overrides` those of all.\n"]
    lines += _family({name: MODELS[name].Params for name in MODELS.built_in})
    lines += ["## Encoders\n", "An entry of `encoders` has a `kind`, and the keys of that kind.\n"]
    nodes = {name: FEATURES[name].Params for name in FEATURES.built_in}
    lines += _family({name: ENCODERS[name].params for name in ENCODERS.built_in} | nodes)
    lines += ["## Semantic IDs\n", "`semantic_ids.settings` has the keys of each method.\n"]
    lines += _family({name: METHODS[name].Params for name in METHODS.built_in})
    lines += ["## Sources\n", "An entry of `sources` has a `kind`, and the keys of that kind.\n"]
    lines += _family({name: SOURCES[name] for name in SOURCES.built_in})
    return "\n".join(lines)


def columns() -> str:
    """Return the page of columns: every table of `schemas`, with the types, limits and meaning of its columns."""
    lines = ["# Columns\n", "Every table, generated from the schemas. The meanings also stand in the Parquet files.\n"]
    for heading, tables in _tables().items():
        lines += [f"## {heading}\n"] * bool(tables)
        for name, table in tables.items():
            text = _table(("column", "type", "meaning"), map(_column, table))
            for number, free in enumerate(name.partition("(")[2].rstrip(")").split(", ")):
                text = text.replace(str(FREE + number), free)
            lines += [f"### {name}\n", *_where(name), text]
    return "\n".join(lines)


PAGES = {
    "reference/python.md": python,
    "reference/commands.md": commands,
    "reference/parameters.md": parameters,
    "reference/columns.md": columns,
}


def _listed() -> Iterator[str]:
    """Yield a line a command under the headings of --help."""
    panel = None
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if command.rich_help_panel != panel:
            panel = command.rich_help_panel
            yield f"\n**{panel}**\n\n"
        does, _, _ = (command.help or "").partition("\n\n")
        yield f"- [{name}](#alignrec-{name}): {_cell(does)}\n"


def _family(kinds: Mapping[str, type[Section]]) -> list[str]:
    """Return what several classes share, then the keys of each class once, under all names that have it."""
    by: dict[type[Section], list[str]] = {}
    for name, kind in kinds.items():
        by.setdefault(kind, []).append(name)
    shared = dict.fromkeys(base for kind in by for base in reversed(_bases(kind)))
    lines = [line for base in shared for line in _section(base, base.__name__)]
    for kind, names in by.items():
        heading = ", ".join(f"`{name}`" for name in names)
        lines += [f"### {heading}\n", f"The keys of {kind.__name__}.\n"] if kind in shared else _section(kind, heading)
    return lines


def _section(kind: type[Section], heading: str) -> list[str]:
    """Return the keys that a class declares itself, and whose keys it takes over."""
    lines = [f"### {heading}\n", f"{_cell(inspect.getdoc(kind))}\n"]
    lines += _keys(kind, kind.model_fields.keys() & inspect.get_annotations(kind).keys())
    others = " and ".join(base.__name__ for base in kind.__bases__ if base in _bases(kind))
    return lines + [f"And the keys of {others}.\n"] * bool(others)


def _bases(kind: type[Section]) -> list[type[Section]]:
    """Return the classes whose keys a class takes over."""
    return [base for base in kind.__mro__[1:] if issubclass(base, Section) and base.model_fields]


def _keys(kind: type[Section], names: Collection[str]) -> list[str]:
    """Return a table of keys, in the order of the class, and after it those of the sections that they hold."""
    schema, documented = kind.model_json_schema(), _documented(kind)
    rows = []
    for name in [name for name in kind.model_fields if name in names]:
        field = kind.model_fields[name]
        found = schema["properties"][field.alias or name]
        default = "required" if field.is_required() else _default(found.get("default"))
        rows.append((f"`{name}`", _type(found), default, documented.get(name, "")))
    parts = [part for part in Section.__subclasses__() if part.__name__ in _held(schema, names)]
    inner = [line for part in parts for line in _section(part, part.__name__)]
    return [_table(("key", "type", "default", "meaning"), rows)] * bool(rows) + inner


def _default(value: Any) -> str:
    """Return a default as YAML has it; of a long mapping only its size."""
    text = json.dumps(value)
    return f"`{text}`" if len(text) <= LONGEST else f"{len(value)} entries"


def _held(schema: dict[str, Any], names: Collection[str]) -> list[str]:
    """Return the classes that keys refer to and that are no section of the file."""
    sections = {kind.__name__ for kind in SECTIONS.values()}
    text = json.dumps({name: value for name, value in schema["properties"].items() if name in names})
    return [name for name in re.findall(r"#/\$defs/(\w+)", text) if name not in sections | {"Source"}]


def _documented(kind: type[Section]) -> dict[str, str]:
    """Return key -> the docstring under it in the source, which classes do not keep."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        declared.target.id: _cell(str(under.value.value))
        for declared, under in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(declared, ast.AnnAssign) and isinstance(declared.target, ast.Name)
        and isinstance(under, ast.Expr) and isinstance(under.value, ast.Constant)
    }  # fmt: skip


def _type(schema: dict[str, Any]) -> str:
    """Return a type of JSON Schema in words."""
    if "$ref" in schema:
        held = schema["$ref"].rpartition("/")[2]
        return f"keys of {held}" if held != "Source" else "see [Sources](#sources)"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{value}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "object":
        inner = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        return f"name → {_type(inner[0]) if isinstance(inner[0], dict) else 'value'}"
    limits = [f"{words}{schema[limit]}" for limit, words in LIMITS.items() if limit in schema]
    return ", ".join([TYPES.get(schema.get("type", ""), "any value"), *limits])


def _tables() -> dict[str, dict[str, pa.Schema]]:
    """Return what each module of `schemas` is about -> name -> schema; free widths are FREE, FREE + 1, ..."""
    groups: dict[str, dict[str, pa.Schema]] = {}
    for imported in ast.parse(inspect.getsource(schemas)).body:
        if not isinstance(imported, ast.ImportFrom):
            continue
        about = inspect.getdoc(importlib.import_module(str(imported.module))) or ""
        group = groups.setdefault(re.split(r"[.;:]", about, maxsplit=1)[0], {})
        for name in (alias.name for alias in imported.names):
            table = getattr(schemas, name)
            if isinstance(table, pa.Schema):
                group[name] = table
            elif inspect.isfunction(table) and inspect.signature(table, eval_str=True).return_annotation is pa.Schema:
                free = inspect.signature(table, eval_str=True).parameters
                given = (FREE + i if free[a].annotation is int else [a] for i, a in enumerate(free))
                group[f"{name}({', '.join(free)})"] = table(*given)
    return groups


def _where(name: str) -> Iterator[str]:
    """Yield the paths of a table as `Layout` documents them; a release has others."""
    layout = Layout(Path("outputs"), "<dataset>")
    for path, described in vars(Layout).items():
        if re.search(rf"\b[Tt]able [^.:]*?\b{name.partition('(')[0]}\b", inspect.getdoc(described) or ""):
            found = getattr(layout, path)
            if inspect.ismethod(found):
                needed = [p.name for p in inspect.signature(found).parameters.values() if p.default is p.empty]
                found = found(**{name: f"<{name}>" for name in needed})
            yield f"`{found}`\n"


def _column(f: pa.Field) -> tuple[str, str, str]:
    meta = {key.decode(): value.decode() for key, value in f.metadata.items()}
    kind = _arrow(f.type)
    limits = [words + meta[limit] for limit, words in (("low", "≥ "), ("high", "≤ ")) if limit in meta]
    if "one_of" in meta:
        limits.append("one of " + ", ".join(f"`{value}`" for value in json.loads(meta["one_of"])))
    return f"`{f.name}`", ", ".join([kind + (" or null" if f.nullable else ""), *limits]), _cell(meta["doc"])


def _arrow(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{_arrow(kind.value_type)}[{kind.list_size}]"
    return f"list of {_arrow(kind.value_type)}" if pa.types.is_list(kind) else WORDS.get(str(kind), str(kind))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _cell(text: str | None) -> str:
    """Return a docstring as one line of Markdown, without HTML and bars outside code."""
    parts = " ".join((text or "").split()).split("`")
    plain = (part.replace("<", "&lt;").replace("|", "&#124;") if i % 2 == 0 else part for i, part in enumerate(parts))
    return "`".join(plain)
