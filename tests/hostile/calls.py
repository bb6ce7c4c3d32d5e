"""A pytest plugin that notes which functions of the product each test calls, for mutants.py.

`pytest -p tests.hostile.calls` writes JSON lines into the folder `CALLS`, a file for each file of tests: a test that
passes, its seconds, and the functions as "path:qualified name". What a fixture calls counts for every test of the file,
as others may share it.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("CALLS", "."))
PRODUCT = f"{ROOT}{os.sep}pipeline{os.sep}"


class Calls:
    """Functions that are called while this is entered, in all threads."""

    def __init__(self) -> None:
        self.codes: set[CodeType] = set()

    def __enter__(self) -> "Calls":
        threading.settrace(self._note)
        sys.settrace(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:  # None: lines are not traced
        self.codes.add(frame.f_code)

    def of_product(self) -> list[str]:
        """Return the functions as "path:qualified name", of files as they are and not as they are linked."""
        names = set()
        for code in list(self.codes):  # threads that go on may add some
            path = os.path.realpath(code.co_filename)
            if path.startswith(PRODUCT):
                names.add(f"{os.path.relpath(path, ROOT)}:{code.co_qualname}")
        return sorted(names)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with Calls() as calls:
        yield
    _write(item, "setup", calls, 0.0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    start = time.perf_counter()
    with Calls() as calls:
        outcome = yield
    if outcome.excinfo is None:
        _write(item, "call", calls, time.perf_counter() - start)


STARTED: set[Path] = set()
"""files that this process began"""


def path_of(folder: Path, tests: str) -> Path:
    """Return the file with the calls of a file of tests."""
    return folder / f"{tests.replace('/', '.')}.jsonl"


def _write(item: pytest.Item, phase: str, calls: Calls, seconds: float) -> None:
    path = path_of(FOLDER, item.nodeid.partition("::")[0])
    found = {"test": item.nodeid, "phase": phase, "seconds": seconds, "functions": calls.of_product()}
    with path.open("a" if path in STARTED else "w") as file:
        file.write(json.dumps(found) + "\n")
    STARTED.add(path)
