"""`alignrec profile`: write params.yaml from a profile."""

from __future__ import annotations

import io as text_io
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from alignrec.commands import project
from alignrec.commands.arguments import PARAMS
from alignrec.commands.params import check, parse
from alignrec.commands.repository import MAX_FILE_BYTES, find_repository, run_git
from alignrec.commands.terminal import say
from alignrec.pipeline import io
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.yaml_files import (
    EXTENDS,
    Loader,
    find_base,
    read_base,
    read_yaml,
)

PROFILES = Path(__file__).parents[1] / "profiles"


def profile(
    name: Annotated[
        str, typer.Argument(help="a profile of the package, such as paper or baby, or a path")
    ],
    to: Annotated[Path, typer.Option("--to", help="parameter file to write")] = PARAMS,
    force: Annotated[
        bool, typer.Option("--force", help="overwrite a file that git does not have")
    ] = False,
) -> None:
    """write a profile into params.yaml, so that git and DVC show its changes."""
    path = find_profile(name)
    if to == PARAMS:
        find_repository(Path())
    overlay = read_yaml(path)
    if not isinstance(overlay, dict):
        raise UserError(
            f"{path}: no profile; expected the keys of a parameter file, or `{EXTENDS}`"
        )
    text = path.read_text(encoding="utf-8")
    changed = list(overlay)
    # a profile is an overlay: keep the comments of the file that it extends
    if EXTENDS in overlay:
        base = find_base(path, overlay)
        del overlay[EXTENDS]
        # paper.yaml extends the parameters of this project or, in a folder without any, those of
        # the package
        if base.name == PARAMS.name and PARAMS.exists():
            base = PARAMS
        read_base(path, base)  # checks it
        text, changed = _merge_documents(base.read_text(encoding="utf-8"), overlay)

    # validate before writing anything; a SafeLoader
    check(parse(yaml.load(text, Loader), path), path)
    if not force:
        _refuse_uncommitted(to, text)
    io.write_bytes(to, text.encode())

    say(f"wrote {to}: {', '.join(changed) or 'nothing changed'}")
    if to == PARAMS:
        for line in project.begin_project(Path()):
            say(line)
    say(f"next: dvc repro; `git diff {to}` shows what changed, `git checkout {to}` takes it back")


def find_profile(name: str) -> Path:
    """Return the file of a profile of the package, or the path that was given."""
    for path in (PROFILES / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path

    profiles = ", ".join(sorted(path.stem for path in PROFILES.glob("*")))
    raise UserError(f"no profile '{name}'; there are {profiles}")


def _refuse_uncommitted(path: Path, text: str) -> None:
    """Raise UserError if a file that would change is not as git has it."""
    if not path.exists():
        return
    before = io.read_plain(path, MAX_FILE_BYTES)
    if before == text.encode():
        return
    committed = run_git(path.parent, "show", f"HEAD:./{path.name}").stdout
    if committed.encode() != before:
        raise UserError(
            f"{path}: has changes that git does not have; commit it, or overwrite it with --force"
        )


def _merge_documents(text: str, overlay: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the parameter file with the overlay's keys and its own comments, and the
    changed keys.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    document = yaml.load(text)

    changed = []
    for section, value in overlay.items():
        current = document.get(section)
        if isinstance(value, dict) and isinstance(current, dict):
            different = [key for key, new in value.items() if current.get(key) != new]
            current.update({key: value[key] for key in different})
            changed += [f"{section}.{key}" for key in different]
        elif section not in document or current != value:
            document[section] = value
            changed.append(section)

    merged = text_io.StringIO()
    yaml.dump(document, merged)
    return merged.getvalue(), changed
