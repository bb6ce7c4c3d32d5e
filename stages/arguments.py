"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer


def _datasets(incomplete: str) -> list[str]:
    from pipeline.errors import UserError
    from stages.params import read

    try:
        return [name for name in read(Path("params.yaml")).sources if name.startswith(incomplete)]
    except UserError:
        return []


Dataset = Annotated[str, typer.Argument(help="a name under `sources` in the parameter file", autocompletion=_datasets)]
Published = Annotated[str, typer.Argument(help="a dataset, or a release folder", autocompletion=_datasets)]
ParamsFile = Annotated[Path, typer.Option("--params", help="parameter file")]
Order = Annotated[
    Path | None, typer.Option("--order", help="mapping file of the rows: identifier, row (such as i_id_mapping.csv)")
]
Root = Annotated[Path, typer.Option("--root", help="folder that holds every stage's outputs")]
Part = Annotated[
    str | None, typer.Option("--part", metavar="I/N", help="make the files of part I of N, as a job array does")
]


def parted(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    part, _, parts = given.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise typer.BadParameter(
            f"'{given}' is no part; give I/N, such as 3/8, with I from 1 to N", param_hint="--part"
        )
    return int(part), int(parts)
