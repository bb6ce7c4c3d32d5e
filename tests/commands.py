"""Run commands in this process, as starting one takes a second or more."""

import contextlib
from pathlib import Path

from typer.testing import CliRunner, Result

from alignrec.commands.app import app


def alignrec(*arguments: str | Path, cwd: Path, **environment: str) -> Result:
    with contextlib.chdir(cwd):
        return CliRunner(env=environment).invoke(app, [*map(str, arguments)])
