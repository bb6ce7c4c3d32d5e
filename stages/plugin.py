"""`alignrec new-plugin`: a package with a recommender, an encoder, a probe, and their test."""

import importlib.util
import keyword
import re
from collections.abc import Iterator
from pathlib import Path

import jinja2

from pipeline import io
from pipeline.errors import UserError, one_line

TEMPLATE = Path(__file__).with_name("plugin")
NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
LONGEST = 40
# file -> its folder; the others are modules of the package
PLACED = {"pyproject.toml": "", "README.md": "", "test_parts.py": "tests"}


def write(folder: Path) -> Iterator[str]:
    name = folder.absolute().name
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        shown = one_line(name, LONGEST)
        raise UserError(f"invalid package name '{shown}'; use up to {LONGEST} of a-z, 0-9, - and _, a letter first")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or importlib.util.find_spec(module):
        raise UserError(f"Python has '{module}' already; choose another name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists, and is not an empty folder; choose another name")
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    for template in sorted(TEMPLATE.rglob("*.jinja")):
        file = template.name.removesuffix(".jinja")
        path = folder / PLACED.get(file, module) / file
        text = engine.from_string(template.read_text(encoding="utf-8")).render(name=name, module=module)
        io.write_bytes(path, text.encode())
        yield f"wrote {path}"
    yield f"next: cd {folder} && pip install --no-deps --editable . && python -m pytest tests"
