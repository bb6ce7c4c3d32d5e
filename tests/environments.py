"""Python of pages, run with only the packages that the page installs.

Packages outside the environment are refused on import. A library that the tests' environment lacks
is installed into an environment of its own in the folder ALIGNREC_LIBRARIES: `make libraries`.
"""

import os
import pickle
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path
from typing import Any

import pytest
from commands import blocks

from alignrec.pipeline.runtime.code import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALIGNREC = "alignrec"
LIBRARIES = "ALIGNREC_LIBRARIES"
INSTALLING = re.compile(r"# .*?\bpip install ([^,\n]+)")
REFUSING = """
import sys
from importlib.machinery import PathFinder
class Installed:  # finds no absent module: find_spec gives None, and an import fails
    finders = sys.meta_path[:]
    find_distributions = staticmethod(PathFinder.find_distributions)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            return None
        specs = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in specs if spec is not None), None)
    def invalidate_caches(self):
        PathFinder.invalidate_caches()
sys.meta_path[:] = [Installed()]
"""
RUNNING = """
import pickle
names = {"__name__": "script"}
exec(code, names)
with open(answers, "wb") as file:
    pickle.dump([eval(value, names) for value in values], file)
"""


@dataclass(frozen=True)
class Script:
    """A block of Python and what `pip install` is given before it runs."""

    code: str
    needs: tuple[str, ...]

    @property
    def library(self) -> str:
        return distribution(self.needs[0])


def scripts(page: str) -> list[Script]:
    """Return a page's blocks of Python; a block without `pip install` needs what the last one does."""
    needs: tuple[str, ...] = ()
    result = []
    for code in blocks(page, "python"):
        if named := INSTALLING.search(code.partition("\n")[0]):
            needs = requirements(named[1])
        assert needs, f"which packages does it need? {code}"
        result.append(Script(code, needs))
    return result


def requirements(arguments: str) -> tuple[str, ...]:
    """Return the packages among the arguments of `pip install`; `.` is alignrec."""
    words = shlex.split(arguments.replace("-c constraints.txt", "").replace("-e ", ""))
    return tuple(re.sub(r"^\.(?=$|\[)", ALIGNREC, word) for word in words)


def distribution(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()  # type: ignore[index]


def installed_with(needs: Iterable[str]) -> set[str]:
    """Return the distributions that requirements install; only alignrec's extras count."""
    todo, brought = [*needs], set[str]()
    while todo:
        requirement = todo.pop()
        name = distribution(requirement)
        if name == ALIGNREC:
            extras = re.search(r"\[(.*?)\]", requirement)
            todo += PROJECT["dependencies"] if name not in brought else []
            for extra in extras[1].split(",") if extras else ():
                todo += PROJECT["optional-dependencies"][extra]
        elif name not in brought:
            todo += required(name)
        brought.add(name)
    return brought


def required(name: str) -> list[str]:
    try:
        return [requirement for requirement in requires(name) or [] if "extra ==" not in requirement]
    except PackageNotFoundError:  # for another platform
        return []


@cache
def absent_modules(needs: tuple[str, ...]) -> set[str]:
    """Return the modules installed here that are not installed with the requirements."""
    brought = installed_with(needs)
    absent = set() if ALIGNREC in brought else {ALIGNREC}
    for module, owners in packages_distributions().items():
        if brought.isdisjoint(map(distribution, owners)):
            absent.add(module)
    return absent


def python(
    absent: set[str], cwd: Path, code: str, interpreter: Path | str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Run code in a process without some modules."""
    script = f"absent = {absent!r}\n{REFUSING}{code}"
    return subprocess.run([interpreter, "-c", script], cwd=cwd, capture_output=True, text=True)


def executed(script: Script, folder: Path, *values: str) -> list[Any]:
    """Run a script in a folder, print its output, and return the values of expressions over its names."""
    absent, interpreter = absent_modules(script.needs), sys.executable
    if missing := [need for need in script.needs if not is_installed(distribution(need))]:
        absent, interpreter = set(), installed_apart(script.needs, missing[0])
    with tempfile.NamedTemporaryFile() as answers:
        given = {"code": script.code, "values": values, "answers": answers.name}
        assignments = "".join(f"{name} = {value!r}\n" for name, value in given.items())
        done = python(absent, folder, assignments + RUNNING, interpreter)
        print(done.stdout, end="")
        assert done.returncode == 0, f"{script.code}\n{done.stderr}"
        result: list[Any] = pickle.load(answers)
    return result


def is_installed(name: str) -> bool:
    if name == ALIGNREC:
        return True
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def installed_apart(needs: tuple[str, ...], missing: str) -> str:
    """Return the interpreter of an environment with the requirements; skip the test if no folder is given."""
    root = os.environ.get(LIBRARIES)
    if root is None:
        pytest.skip(f"{missing} is not installed; `make libraries` runs this test")
    folder = Path(root) / "-".join(map(distribution, needs))
    if not (folder / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    interpreter = str(folder / "bin/python")
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs]
    subprocess.run(pip, check=True)
    return interpreter
