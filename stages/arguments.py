"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _datasets(incomplete: str) -> list[str]:
    """Return the datasets whose names begin so, for the shell's completion."""
    from pipeline.errors import UserError
    from stages.params import read

    try:
        return [name for name in read(Path("params.yaml")).sources if name.startswith(incomplete)]
    except UserError:
        return []


Dataset = Annotated[str, typer.Argument(help="a name under `sources` in the parameter file", autocompletion=_datasets)]
Published = Annotated[str, typer.Argument(help="a dataset, or a release folder", autocompletion=_datasets)]
ParamsFile = Annotated[Path, typer.Option("--params", envvar="ALIGNREC_PARAMS", help="parameter file")]
Order = Annotated[
    Path | None,
    typer.Option("--order", help="mapping file of somebody's rows: identifier, row (such as i_id_mapping.csv)"),
]
Root = Annotated[Path, typer.Option("--root", help="folder that holds every stage's outputs")]
