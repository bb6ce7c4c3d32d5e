"""Commands, run in this process, as starting one takes a second or more; code of pages; and scripts of .ci."""

import contextlib
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from typer import testing
from typer.testing import CliRunner, Result

from alignrec.commands.app import app
from alignrec.pipeline.runtime.code import ROOT

# else each call builds all commands, which takes 20 ms
testing._get_command = cache(testing._get_command)  # noqa: SLF001


def alignrec(*arguments: object, cwd: Path | str = ".", **environment: str) -> Result:
    with contextlib.chdir(cwd):
        return CliRunner(env=environment).invoke(app, [*map(str, arguments)])


def run_stages(dataset: str, *stages: str, cwd: Path | str = ".") -> str:
    """Run the commands of stages, each of which succeeds; return their output."""
    output = ""
    for stage in stages:
        done = alignrec(stage, dataset, cwd=cwd)
        assert done.exit_code == 0, done.output
        output += done.output
    return output


def error_line(failed: Result) -> str:
    """Return the only line with an error of a command that failed."""
    assert failed.exit_code == 1, failed.output
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("error: "))
    return line


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in a page of Markdown."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def script(name: str) -> ModuleType:
    """Load .ci/<name>.py, and the scripts that it imports."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f".ci/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / ".ci"))
    return module
