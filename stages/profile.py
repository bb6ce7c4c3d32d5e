"""`alignrec profile`: writes a profile into params.yaml, where DVC and git see what changed."""

import io as text_io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import io
from pipeline.config import document
from pipeline.config.base import nearest
from pipeline.errors import UserError
from stages import params, project

FOLDER = Path("profiles")


def write(name: str, to: Path) -> Iterator[str]:
    """Write a profile, by name in profiles/ or path, into a parameter file with its comments; yield what changed.

    A profile with `extends` is merged into the file that it names; another one is a whole parameter file. Nothing is
    written if the parameters are refused.
    """
    path = _find(name)
    over = document.read(path)
    if isinstance(over, dict) and document.EXTENDS in over:
        document.read_extended(path)  # refuses what it extends, if that is no whole parameter file
        base = path.parent / over.pop(document.EXTENDS)
        text, changed = _merge(base.read_text(encoding="utf-8"), over)
    else:
        text, changed = path.read_text(encoding="utf-8"), list(over) if isinstance(over, dict) else []
    scratch = to.with_name(f".{to.name}.profile")
    try:
        scratch.write_text(text, encoding="utf-8")
        params.check(params.read(scratch), path)
    except UserError as e:
        raise UserError(str(e).replace(str(scratch), str(path))) from None
    finally:
        scratch.unlink(missing_ok=True)
    io.write_bytes(to, text.encode())
    yield f"wrote {to}: {', '.join(changed) or 'nothing changed'}"
    if to == project.PARAMS:
        yield from project.begin(Path())
    yield f"next: dvc repro; `git diff {to}` shows what changed, `git checkout {to}` takes it back"


def _find(name: str) -> Path:
    for path in (FOLDER / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    raise UserError(f"no profile '{name}'{nearest(name, sorted(path.stem for path in FOLDER.glob('*.yaml')))}")


def _merge(text: str, over: Mapping[str, Any]) -> tuple[str, list[str]]:
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
