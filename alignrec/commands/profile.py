"""`alignrec profile`: write params.yaml from a profile."""

from __future__ import annotations

import io as text_io
import itertools
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from alignrec.commands import project
from alignrec.commands.arguments import PARAMS
from alignrec.commands.params import check, parse
from alignrec.commands.repository import MAX_FILE_BYTES, find_repository
from alignrec.commands.terminal import say
from alignrec.pipeline import io
from alignrec.pipeline.evaluation.benchmark.params import Benchmark
from alignrec.pipeline.features.names import DeclaredSets
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.runtime.section import validate
from alignrec.pipeline.runtime.yaml_files import (
    EXTENDS,
    Loader,
    find_base,
    merge,
    read_base,
    read_yaml,
)

PROFILES = Path(__file__).parents[1] / "profiles"


def profile(
    name: Annotated[
        str, typer.Argument(help="a profile of the package, such as paper or baby, or a path")
    ],
    to: Annotated[Path, typer.Option("--to", help="parameter file to write")] = PARAMS,
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
    absent: list[str] = []
    # a profile is an overlay: keep the comments of the file that it extends
    if EXTENDS in overlay:
        base = find_base(path, overlay)
        del overlay[EXTENDS]
        # paper.yaml extends the parameters of this project or, in a folder without any, those of
        # the package
        if base.name == PARAMS.name and PARAMS.exists():
            base = PARAMS
        overlay, absent = _without_absent_sets(overlay, read_base(path, base), path)
        text, changed = _merge_documents(base.read_text(encoding="utf-8"), overlay)

    # validate before writing anything; a SafeLoader
    params = parse(yaml.load(text, Loader), path)
    check(params, path)
    backup = _keep_uncommitted(to, text)
    io.write_bytes(to, text.encode())

    say(f"wrote {to}: {', '.join(changed) or 'nothing changed'}")
    if absent:
        say(f"left out, as there are no such feature sets: {', '.join(absent)}")
    if to == PARAMS:
        for line in project.begin_project(Path()):
            say(line)
    undo = f"`git diff {to}` shows what changed, `git checkout {to}` takes it back"
    if backup:
        undo = f"{backup} is {to} as it was, which git does not have"
    say(f"next: dvc repro; {undo}")


def find_profile(name: str) -> Path:
    """Return the file of a profile of the package, or the path that was given."""
    for path in (PROFILES / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path

    profiles = ", ".join(sorted(path.stem for path in PROFILES.glob("*")))
    raise UserError(f"no profile '{name}'; there are {profiles}")


def _without_absent_sets(
    overlay: dict[str, Any], base: dict[str, Any], path: Path
) -> tuple[dict[str, Any], list[str]]:
    """Drop the feature sets that the project lacks from the benchmark of an overlay, the file
    `path`; return it and the dropped names.
    """
    benchmark = overlay.get("benchmark", {})
    try:
        validate(Benchmark, benchmark, "benchmark")
    except UserError as e:
        raise UserError(f"{path}: {e}") from None
    features = benchmark.get("features", [])
    ablations = benchmark.get("ablations", {})
    params = parse(merge(base, overlay) | {"benchmark": {}}, path)
    available = [set(DeclaredSets(params, dataset).names()) for dataset in params.datasets]
    common = set.intersection(*available)

    ablated = [str(keys["features"]) for keys in ablations.values() if "features" in keys]
    absent = [name for name in dict.fromkeys([*features, *ablated]) if name not in common]
    if not absent:
        return overlay, []

    present = {
        "features": [name for name in features if name not in absent],
        "ablations": {
            row: keys for row, keys in ablations.items() if keys.get("features") not in absent
        },
    }
    return overlay | {"benchmark": benchmark | present}, absent


def _keep_uncommitted(path: Path, text: str) -> Path | None:
    """Back up a file before it is overwritten, unless git has it or nothing changes; return the
    copy.
    """
    if not path.exists():
        return None
    before = io.read_plain(path, MAX_FILE_BYTES)
    if before == text.encode():
        return None
    if shutil.which("git"):
        committed = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True)
        if committed.stdout == before:
            return None

    for number in itertools.count(1):
        copy = path.with_name(f"{path.stem}.{number}{path.suffix}")
        if not copy.exists():
            break
    io.write_bytes(copy, before)
    return copy


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
        elif current != value:
            document[section] = value
            changed.append(section)

    merged = text_io.StringIO()
    yaml.dump(document, merged)
    return merged.getvalue(), changed
