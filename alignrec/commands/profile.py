"""`alignrec profile`: writes a profile into params.yaml, where DVC and git see what changed."""

import io as text_io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from alignrec.commands import project
from alignrec.commands.arguments import PARAMS
from alignrec.commands.params import load
from alignrec.commands.terminal import say
from pipeline import io
from pipeline.config import document
from pipeline.config.base import nearest
from pipeline.errors import UserError

FOLDER = Path("profiles")


def profile(
    name: Annotated[str, typer.Argument(help="a profile in profiles/, without .yaml, or a path")],
    to: Annotated[Path, typer.Option("--to", help="parameter file to write")] = PARAMS,
) -> None:
    """write a profile into params.yaml, where git and DVC show what it changes."""
    path = _find(name)
    load(path)  # refuses what is wrong, before anything is written
    over = document.read(path)
    if document.EXTENDS in over:
        base = path.parent / over.pop(document.EXTENDS)
        text, changed = _merge(base.read_text(encoding="utf-8"), over)
    else:
        text, changed = path.read_text(encoding="utf-8"), list(over)
    io.write_bytes(to, text.encode())
    say(f"wrote {to}: {', '.join(changed) or 'nothing changed'}")
    for line in project.begin(Path()) if to == PARAMS else ():
        say(line)
    say(f"next: dvc repro; `git diff {to}` shows what changed, `git checkout {to}` takes it back")


def _find(name: str) -> Path:
    for path in (FOLDER / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    raise UserError(f"no profile '{name}'{nearest(name, sorted(path.stem for path in FOLDER.glob('*.yaml')))}")


def _merge(text: str, over: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return a parameter file with some keys replaced and its comments kept, and those keys."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    merged, changed = yaml.load(text), []
    for section, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(section), dict)
        for key, new in value.items() if both else ((None, value),):
            under = merged[section] if both else merged
            place = key if both else section
            if under.get(place) != new:
                under[place] = new
                changed.append(f"{section}.{key}" if both else section)
    written = text_io.StringIO()
    yaml.dump(merged, written)
    return written.getvalue(), changed
