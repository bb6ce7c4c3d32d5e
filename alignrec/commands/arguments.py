"""Arguments and options shared by several commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from alignrec.commands.params import of_release, read
from alignrec.pipeline.io.errors import UserError
from alignrec.pipeline.release.read import Release, unpack_release
from alignrec.pipeline.runtime.layout import Layout
from alignrec.pipeline.runtime.params import Parameters
from alignrec.pipeline.runtime.section import require_known


def _complete(incomplete: str) -> list[str]:
    try:
        return [name for name in read(Path("params.yaml")).sources if name.startswith(incomplete)]
    except UserError:
        return []


def _require_local(root: Path) -> Path:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(root), re.IGNORECASE):
        raise UserError(f"--root {root}: an address; name a folder of this machine")
    return root


Dataset = Annotated[
    str,
    typer.Argument(help="a name under `sources` in the parameter file", autocompletion=_complete),
]
DatasetOrRelease = Annotated[
    str, typer.Argument(help="a dataset, or a release folder", autocompletion=_complete)
]
OneOrAll = Annotated[
    str | None, typer.Argument(help="one dataset; all of the parameter file's by default")
]
ReleaseFolder = Annotated[Path, typer.Argument(help="a release folder")]
ParamsFile = Annotated[Path, typer.Option("--params", help="parameter file")]
Root = Annotated[
    Path,
    typer.Option("--root", help="folder that holds every stage's outputs", callback=_require_local),
]
Key = Annotated[Path | None, typer.Option(help="public SSH key (.pub) that must have signed it")]
Json = Annotated[Path | None, typer.Option("--json", help="also write the result here")]
Order = Annotated[
    Path | None,
    typer.Option(
        "--order", help="mapping file of the rows: identifier, row (such as i_id_mapping.csv)"
    ),
]
Sets = Annotated[
    list[str] | None, typer.Option(help="a feature set; may be given again; all by default")
]
PARAMS, ROOT = Path("params.yaml"), Path("outputs")


def parse_columns(pairs: Sequence[str], roles: Iterable[str]) -> dict[str, str]:
    """Return role -> column of pairs such as item=sku; UserError for unknown roles."""
    columns: dict[str, str] = {}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not (equals and column):
            raise UserError(f"--column {pair}: write role=name, such as item=sku")
        require_known([role], roles, "--column")
        columns[role] = column

    return columns


def is_release(name: str) -> bool:
    if (Path(name) / "manifest.json").exists():
        return True
    if Path(name).name != name:  # reject paths: a dataset has a plain name
        raise UserError(f"{name}: no release folder: there is no manifest.json in it")
    return False


@contextmanager
def open_layout(name: str, root: Path, *needs: str, whole: bool = False) -> Iterator[Layout]:
    """Yield the outputs of a dataset, or a release unpacked in the same layout, if `whole` with all
    items; UserError if it lacks `needs`.
    """
    if not is_release(name):
        yield Layout(root, name)
        return
    with unpack_release(Release(Path(name)).verify(), needs, whole) as layout:
        yield layout


def settings_of(name: str, params: Path) -> Parameters:
    return of_release(Release(Path(name)), params) if is_release(name) else read(params, name)
