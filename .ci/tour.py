"""Runs the cells of docs/tour.ipynb on the outputs of `make repro`, and keeps what they print: `make figures`."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
from contextlib import redirect_stdout
from pathlib import Path
from pprint import pformat
from typing import Any

TOUR = Path(__file__).resolve().parent.parent / "docs/tour.ipynb"


def main() -> None:
    """Write the notebook anew."""
    os.chdir(TOUR.parent)
    notebook = run(json.loads(TOUR.read_text(encoding="utf-8")))
    TOUR.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook with the outputs of its cells, and with the hash of the code that made them."""
    names: dict[str, Any] = {}
    for number, cell in enumerate(coded(notebook), 1):
        cell |= {"execution_count": number, "outputs": outputs("".join(cell["source"]), names, number)}
    return notebook | {"metadata": notebook["metadata"] | {"code": code(notebook)}}


def code(notebook: dict[str, Any]) -> str:
    """Return the sha256 of all code of a notebook."""
    return hashlib.sha256(json.dumps([cell["source"] for cell in coded(notebook)]).encode()).hexdigest()


def coded(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of a notebook that hold code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Run a cell in a namespace; return what it prints, and the value of its last line, if that is an expression."""
    *body, last = ast.parse(source).body
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), "tour", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "tour", "eval"), names)
        else:
            value = exec(compile(ast.Module([last], []), "tour", "exec"), names)
    found: list[dict[str, Any]] = []
    if text := printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": pformat(value).splitlines(keepends=True)}
        found.append({"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}})
    return found


if __name__ == "__main__":
    main()
