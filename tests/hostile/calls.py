"""A pytest plugin that notes which functions of the product each test calls, for mutants.py.

Each process of `pytest -p tests.hostile.calls` writes JSON lines into the folder `CALLS`: a test, its seconds, and the
functions as "path:first line". What a fixture calls counts for every test of the file, as others may share it.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
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
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self.codes.add(frame.f_code)

    def of_product(self) -> list[str]:
        """Return the functions as "path:first line", of files as they are and not as they are linked."""
        names = set()
        for code in self.codes:
            path = os.path.realpath(code.co_filename)
            if path.startswith(PRODUCT):
                names.add(f"{os.path.relpath(path, ROOT)}:{code.co_firstlineno}")
        return sorted(names)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with Calls() as calls:
        yield
    _write(item, "setup", calls, 0.0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    start = time.perf_counter()
    with Calls() as calls:
        yield
    _write(item, "call", calls, time.perf_counter() - start)


def _write(item: pytest.Item, phase: str, calls: Calls, seconds: float) -> None:
    functions = calls.of_product()
    if not functions:
        return
    found = {"test": item.nodeid, "phase": phase, "seconds": seconds, "functions": functions}
    with open(FOLDER / f"{os.getpid()}.jsonl", "a") as file:
        file.write(json.dumps(found) + "\n")
