"""Run commands in this process, as starting one takes a second or more, and load scripts of .ci."""

import contextlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from typer.testing import CliRunner, Result

from alignrec.commands.app import app
from alignrec.pipeline.harness.code import ROOT


def alignrec(*arguments: str | Path, cwd: Path, **environment: str) -> Result:
    with contextlib.chdir(cwd):
        return CliRunner(env=environment).invoke(app, [*map(str, arguments)])


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
